"""What the package takes beside what else there is, in one run: ratios, the table of docs/python.md.

    pip install PyMaxflow torch && pip install --no-deps torch-struct    # what is missing is left out, with a line
    python python/bench/compare.py [--rounds 15] [--only NAME]

Both sides of a ratio take turns, round by round, with one thread each; a figure is the median of the rounds of their
ratios, and beside it the lower and upper quartile. Times are those of the processor, which a busy machine lengthens
less; its load is printed. Where others compute, `chrt -r 1` before the command gives it the cores for its seconds.
Answers are compared where they can be. A batch has 100 examples.
"""

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time

for _name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]:
    os.environ[_name] = "1"

import json # noqa: E402

import numpy as np # noqa: E402

import gumbel_argmax as ga # noqa: E402

BATCH = 100


def seconds(call, repeats=1, clock=time.process_time):
    """Of the processor by default: those of the wall, on a machine that does nothing else."""
    begin = clock()
    for _ in range(repeats):
        call()
    return (clock() - begin) / repeats


def versus(other, ours, rounds, repeats=(1, 1)):
    """Ratios of the seconds of the other to ours, and ours: medians with quartiles."""
    other(), ours()
    pairs = [(seconds(other, repeats[0]), seconds(ours, repeats[1])) for _ in range(rounds)]
    return statistics.quantiles([a / b for a, b in pairs], n=4), statistics.median(b for _, b in pairs)


def overhead(rounds):
    """A call of one example of one variable: what is around the solver."""
    one = ga.Categorical(4)
    theta, batch = np.zeros(4, np.float32), np.zeros((BATCH, 4), np.float32)
    for name, call in [
        ("solve, one example", lambda: one.solve(theta)),
        ("solve, a batch", lambda: one.solve(batch)),
        ("marginals, a batch", lambda: one.marginals(batch)),
    ]:
        call()
        found = statistics.median(seconds(call, 2000) for _ in range(rounds))
        yield f"call of `Categorical(4)`: {name}", f"{1e6 * found:.1f} us", "at most 30 us", 1e6 * found <= 30


def maxflow(rounds):
    """Minimum cuts of 15 binary variables: a loop over PyMaxflow, as one writes it, and one call for all edges."""
    import maxflow as peer

    n, generator = 15, np.random.default_rng(0)
    model = ga.Supermodular(n)
    theta = model.to_potentials(generator.standard_normal((BATCH, model.potentials)))
    i, j = np.triu_indices(n, 1)
    h = theta[:, : 2 * n].reshape(BATCH, n, 2).astype(np.float64)
    w = theta[:, 2 * n :].astype(np.float64)
    c = 2 * (h[..., 1] - h[..., 0])
    np.add.at(c, (slice(None), i), w)
    np.add.at(c, (slice(None), j), w)
    pairs = list(zip(i.tolist(), j.tolist()))

    def loop():
        found = np.empty((BATCH, n), np.uint32)
        for b in range(BATCH):
            graph = peer.GraphFloat()
            nodes = graph.add_nodes(n)
            for v in range(n):
                graph.add_tedge(nodes[v], max(c[b, v], 0), max(-c[b, v], 0))
            for e, (v, u) in enumerate(pairs):
                graph.add_edge(nodes[v], nodes[u], w[b, e], w[b, e])
            graph.maxflow()
            found[b] = [1 - graph.get_segment(nodes[v]) for v in range(n)]
        return found

    def arrays():
        found = np.empty((BATCH, n), np.uint32)
        for b in range(BATCH):
            graph = peer.GraphFloat(n, len(pairs))
            nodes = graph.add_grid_nodes(n)
            graph.add_grid_tedges(nodes, np.maximum(c[b], 0), np.maximum(-c[b], 0))
            graph.add_edges(i, j, w[b], w[b])
            graph.maxflow()
            found[b] = ~graph.get_grid_segments(nodes)
        return found

    ours = lambda: model.solve(theta, threads=1).assignments # noqa: E731
    for found in (loop(), arrays()):
        assert np.allclose(model.score(theta, found), model.score(theta, ours()), atol=1e-5)
    for name, other, least in [("a loop of calls", loop, 20), ("edges as arrays", arrays, 5)]:
        ratios, own = versus(other, ours, rounds, (1, 20))
        yield f"`Supermodular(15).solve`: PyMaxflow, {name}", ratios, own, f"at least {least}", ratios[1] >= least


def pairwise(rounds):
    """The search, against the seconds that `gumbel solve` says it has spent on the same problems."""
    for n, batch in [(15, BATCH), (30, BATCH)]:
        model, generator = ga.Pairwise(n), np.random.default_rng(1)
        theta = generator.standard_normal((batch, model.potentials)).astype(np.float32)
        i, j = np.triu_indices(n, 1)
        lines = []
        for row in theta.astype(np.float64):
            pairs = [[int(a), int(b), w] for a, b, w in zip(i, j, row[2 * n :])]
            # One number of each variable: the differences of the two, in double precision.
            unary = (row[1 : 2 * n : 2] - row[: 2 * n : 2]).tolist()
            lines.append(json.dumps({"structure": "pairwise", "unary": unary, "pairs": pairs}))
        text = "\n".join(lines)

        def program():
            words = [sys.executable, "-m", "gumbel_argmax", "solve", "--threads", "1"]
            found = subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout
            answers = [json.loads(line) for line in found.splitlines()]
            return np.array([a["seconds"] for a in answers]), [a["z"] for a in answers]

        assert (np.array(program()[1]) == model.solve(theta, threads=1).assignments).all()
        # The program says seconds of the wall: the shortest of every problem, beside our shortest of the batch.
        theirs, own = np.full(batch, np.inf), np.inf
        for _ in range(rounds):
            theirs = np.minimum(theirs, program()[0])
            own = min(own, seconds(lambda: model.solve(theta, threads=1), 3))
        ratio = theirs.sum() / own
        name = f"`Pairwise({n}).solve`: `gumbel solve` without the JSON, shortest of {rounds}"
        yield name, [ratio, ratio, ratio], own, "about 1", ratio >= 0.8


def struct(rounds):
    """Log-partition and marginals of chains, against torch-struct on the same numbers."""
    import torch
    import torch_struct

    torch.set_num_threads(1)
    for length, values in [(20, 8), (50, 16)]:
        chain, generator = ga.Chain(length, values), np.random.default_rng(2)
        theta = generator.standard_normal((BATCH, chain.potentials)).astype(np.float32)
        unary = torch.from_numpy(theta[:, : length * values].reshape(BATCH, length, values))
        steps = torch.from_numpy(theta[:, length * values :].reshape(BATCH, length - 1, values, values))
        # Its potentials are [batch, edge, later, earlier].
        log_potentials = steps.transpose(2, 3) + unary[:, 1:, :, None]
        log_potentials[:, 0] += unary[:, 0, None, :]
        log_potentials = log_potentials.contiguous()

        def other():
            made = torch_struct.LinearChainCRF(log_potentials)
            return made.marginals, made.partition

        ours = lambda: chain.marginals_and_log_partition(theta, threads=1) # noqa: E731
        (edges, total), (marginals, log_partition) = other(), ours()
        np.testing.assert_allclose(total.detach(), log_partition, rtol=1e-4)
        found = marginals[:, length * values :].reshape(BATCH, length - 1, values, values)
        np.testing.assert_allclose(edges.detach().transpose(2, 3), found, atol=1e-3)
        ratios, own = versus(other, ours, rounds, (1, 10))
        name = f"`Chain({length}, {values})`, log-partition and marginals: torch-struct"
        yield name, ratios, own, "at least 20", ratios[1] >= 20


def together(rounds):
    """Two threads of Python that solve side by side, against one alone: 1 if the lock is released."""
    chain = ga.Chain(50, 16)
    theta = np.random.default_rng(3).standard_normal((4 * BATCH, chain.potentials)).astype(np.float32)

    def work():
        for _ in range(20):
            chain.solve(theta, threads=1)

    def two():
        both = [threading.Thread(target=work) for _ in range(2)]
        [thread.start() for thread in both]
        [thread.join() for thread in both]

    # Of the wall: the more so does it need two cores that do nothing else.
    pairs = [(seconds(two, clock=time.perf_counter), seconds(work, clock=time.perf_counter)) for _ in range(rounds)]
    ratios, own = statistics.quantiles([a / b for a, b in pairs], n=4), statistics.median(b for _, b in pairs)
    name = f"two threads side by side on {os.cpu_count()} cores: over one alone"
    yield name, ratios, own, "at most 1.2", ratios[1] <= 1.2


def paper(rounds):
    """A step of the paper's structured auto-encoder: 15 binary variables, minimum cuts, perceptrons, Adam.

    The authors' way: a graph of PyMaxflow for each example, twice; between them the decoder on all changes of one
    coordinate of each example. Ours is `direct` with the same networks.
    """
    import maxflow as peer
    import torch
    from torch import nn

    from gumbel_argmax.torch import estimate, potentials

    torch.set_num_threads(1)
    n, latent = 15, ga.Supermodular(15)
    x = (torch.rand(BATCH, 784, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    pairs = [(v, u) for v in range(n) for u in range(v + 1, n)]
    cross = nn.functional.binary_cross_entropy_with_logits

    def networks():
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, latent.potentials))
        decoder = nn.Sequential(nn.Linear(latent.unary, 300), nn.ReLU(), nn.Linear(300, 784))
        adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
        return encoder, decoder, adam

    def cut(score, weights):
        """Assignments for scores of ones [n] and weights [pairs] of one example."""
        graph = peer.GraphFloat()
        nodes = graph.add_nodes(n)
        c = [2 * s for s in score]
        for e, (v, u) in enumerate(pairs):
            graph.add_edge(nodes[v], nodes[u], weights[e], weights[e])
            c[v] += weights[e]
            c[u] += weights[e]
        for v in range(n):
            graph.add_tedge(nodes[v], max(c[v], 0), max(-c[v], 0))
        graph.maxflow()
        return [1 - graph.get_segment(nodes[v]) for v in range(n)]

    def hot(z):
        return torch.stack([1 - z, z], -1).flatten(-2)

    def theirs(encoder, decoder, adam):
        theta = potentials(encoder(x), latent)
        h = theta.detach()
        h = h[:, : 2 * n] + torch.from_numpy(ga.gumbel((BATCH, 2 * n), theirs.step))
        theirs.step += 1
        score, w = (h[:, 1::2] - h[:, ::2]), theta.detach()[:, 2 * n :].tolist()
        star = torch.tensor([cut(s, row) for s, row in zip(score.tolist(), w)], dtype=torch.float32)
        with torch.no_grad():
            switched = (star[:, None] - torch.eye(n)).abs()
            logits = decoder(hot(torch.cat([star[:, None], switched], 1)))
            losses = cross(logits, x[:, None].expand(logits.shape), reduction="none").sum(-1)
            gain = (losses[:, 1:] - losses[:, :1]) * (1 - 2 * star) # of a one over a zero
        moved = torch.tensor([cut(s, row) for s, row in zip((score - gain).tolist(), w)], dtype=torch.float32)
        statistics = lambda z: torch.cat([hot(z), torch.stack([z[:, v] * z[:, u] for v, u in pairs], 1)], 1) # noqa
        loss = cross(decoder(hot(star)), x, reduction="none").sum(-1).mean()
        loss = loss + ((statistics(star) - statistics(moved)) * theta).sum(-1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    def ours(encoder, decoder, adam, estimator):
        def loss(codes, of):
            return cross(decoder(codes), x[of], reduction="none").sum(-1)

        theta = potentials(encoder(x), latent)
        found = estimate(theta, loss, latent, estimator, threads=1)
        adam.zero_grad()
        found.loss.mean().backward()
        adam.step()

    theirs.step = 0
    a, b = networks(), networks()
    name = "a step of the paper's loop, decoder in PyTorch: PyMaxflow, against `direct`"
    same = ga.Estimator(latent, "direct", epsilon=1.0, joint="off")
    search = ga.Estimator(latent, "direct", epsilon=1.0, joint="search", first="slopes", rounds=1)
    ratios, own = versus(lambda: theirs(*a), lambda: ours(*b, same), rounds, (2, 2))
    yield f"{name} with the same estimate", ratios, own, "at least 3", ratios[1] >= 3
    ratios, own = versus(lambda: theirs(*a), lambda: ours(*b, search), rounds, (2, 2))
    yield f"{name} with slopes in place of all changes", ratios, own, "at least 3", ratios[1] >= 3
    # What no solver could save: the networks with Adam, and the decoder on the changes.
    encoder, decoder, adam = networks()
    codes = torch.rand(BATCH * (n + 1), latent.unary)
    wide = x.repeat_interleave(n + 1, 0)

    def floor():
        with torch.no_grad():
            cross(decoder(codes), wide, reduction="none").sum(-1)
        loss = cross(decoder(codes[:BATCH]), x, reduction="none").sum(-1).mean() + encoder(x).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    ratios, own = versus(lambda: ours(*b, same), floor, rounds, (2, 2))
    name = "the step with the same estimate: over its networks alone, without any solver"
    yield name, ratios, own, "near 1", ratios[1] < 1.5


ALL = [overhead, maxflow, pairwise, struct, together, paper]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=[part.__name__ for part in ALL])
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error(f"--rounds {args.rounds}: expected at least 2")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, medians of {args.rounds} rounds\n")
    print("| against | ratio (quartiles) | ours | asked for | |\n|---|---|---|---|---|")
    for part in ALL:
        if args.only not in (None, part.__name__):
            continue
        try:
            for name, *rest in part(args.rounds):
                if len(rest) == 3:
                    figure, wanted, met = rest
                    own = ""
                else:
                    (low, middle, high), own, wanted, met = rest
                    figure, own = f"{middle:.2f} ({low:.2f} to {high:.2f})", f"{1e3 * own:.3f} ms"
                print(f"| {name} | {figure} | {own} | {wanted} | {'' if met else 'missed'} |", flush=True)
        except ImportError as error:
            print(f"| {part.__name__}: left out, {error} | | | | |")
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
