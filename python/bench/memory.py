"""Whether memory stays flat over a million calls: of solvers, sums, samples, estimators, layers, and of their errors.

    python python/bench/memory.py [calls]

Prints the resident bytes as it goes, and ends with 1 if the last nine tenths have taken more than 4 MB. Linux only.
What is with PyTorch is left out where that is missing.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np # noqa: E402

import gumbel_argmax as ga # noqa: E402

ALLOWED = 4 << 20


def resident():
    """Bytes in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class First(ga.Custom):
    """One of five, in Python."""

    def __init__(self):
        super().__init__(potentials=5, variables=1)

    def argmax_rows(self, theta):
        return theta.argmax(axis=-1)[:, None]

    def statistics_rows(self, z):
        return np.eye(5)[z[:, 0]]


def refused(call, *kinds):
    try:
        call()
    except kinds:
        return
    raise AssertionError("expected an exception")


def calls():
    """Calls of every sort, one after the other."""
    chain, pairs = ga.Chain(5, 3), ga.Pairwise(6)
    theta, few = ga.gumbel((10, chain.potentials)), ga.gumbel((3, pairs.potentials))
    made, own = ga.Estimator(chain, "direct"), ga.Estimator(First(), "imle")
    losses = lambda codes, of: codes[:, 0] # noqa: E731

    def raises(codes, of):
        raise KeyError(codes)

    all = [
        lambda: chain.solve(theta, threads=1),
        lambda: pairs.solve(few, limit=1.0),
        lambda: chain.marginals(theta, threads=1),
        lambda: chain.kl_to_uniform(theta, threads=1),
        lambda: chain.sample(theta, seed=1, threads=1),
        lambda: chain.encode(np.zeros((10, 5), np.uint32)),
        lambda: ga.Subset(6, 2).solve(np.zeros(6)),
        lambda: made.estimate(theta, losses, threads=1),
        lambda: made.estimate_linear(theta, np.zeros((10, 15), np.float32), threads=1),
        lambda: own.estimate_linear(np.zeros(5), np.ones(5)),
        lambda: refused(lambda: chain.solve(theta * np.nan), ValueError),
        lambda: refused(lambda: chain.solve(theta[:, 1:]), ValueError),
        lambda: refused(lambda: made.estimate(theta, raises, threads=1), KeyError),
    ]
    try:
        import torch

        import gumbel_argmax.torch as gt
    except ImportError:
        print("without PyTorch, which is not installed")
        return all
    tensor = torch.from_numpy(theta).requires_grad_()
    layer = gt.Argmax(chain, "imle")
    return [
        *all,
        lambda: gt.log_partition(tensor, chain).sum().backward(),
        lambda: gt.direct(tensor, lambda codes, of: codes[:, 0], chain, threads=1).loss.sum().backward(),
        lambda: layer(tensor).sum().backward(),
    ]


def main():
    total = int(sys.argv[1]) if sys.argv[1:] else 1_000_000
    each = calls()
    rounds = total // len(each)
    for r in range(rounds):
        for call in each:
            call()
        if r == rounds // 10:
            begin = resident()
        if r % max(rounds // 10, 1) == 0:
            print(f"{r * len(each):>8} calls: {resident() / 1e6:.1f} MB", flush=True)
    grown = resident() - begin
    print(f"{rounds * len(each)} calls: {grown / 1e6:+.2f} MB in the last nine tenths, at most {ALLOWED / 1e6:.1f}")
    return int(grown > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
