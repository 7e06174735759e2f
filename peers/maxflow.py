#!/usr/bin/env python3
"""Super-modular arg max: PyMaxflow against gumbel's Supermodular, the same instances in one run, one thread each.

Instances: u ~ N(0,1) + difference of two Gumbels, weights sigma * |N(0,1)|. "balanced" takes half of a variable's
weights from its u (sigma = 1), so that the flow has to decide; "hard" multiplies u by sqrt(n) before.

PyMaxflow's graphs are built from arrays (add_grid_tedges, add_edges): one per instance, or one graph of the whole batch
side by side ("at once"); "flow only" is the time inside maxflow() alone. The first ratio is that of the faster of the two
to Supermodular, both from potentials to values and assignments; the second that of the flow alone. Values must agree to
1e-9 of the magnitude. PyMaxflow's times are processor times, which a busy machine lengthens less.

The last columns: solving again after unaries changed by -epsilon * N(0,1), from scratch and by `resolve`.

Needs numpy and PyMaxflow, and the example: cargo build --release -p gumbel --example supermodular_batch
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# This script has its peer's name: look elsewhere.
sys.path = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import maxflow  # noqa: E402
import numpy as np  # noqa: E402

COLUMNS = "{:>5} {:>9} {:>9} {:>9} {:>9} {:>12} {:>6} {:>6}   {:>8} {:>8} {:>6}"


def instances(n, family, batch, epsilon, rng):
    """Potentials [batch, P] and changed unaries [batch, 2n], f32."""
    pairs = n * (n - 1) // 2
    sigma = {"1": 1.0, "0.3": 0.3, "3/n": 3.0 / n, "balanced": 1.0, "hard": 1.0}[family]
    weights = (sigma * np.abs(rng.standard_normal((batch, pairs)))).astype(np.float32)
    unary = rng.gumbel(size=(batch, n, 2))
    unary[:, :, 1] += rng.standard_normal((batch, n))
    if family in ("balanced", "hard"):
        if family == "hard":
            unary *= np.sqrt(n)
        i, j = np.triu_indices(n, 1)
        for b in range(batch):
            unary[b, :, 1] -= 0.5 * (np.bincount(i, weights[b], n) + np.bincount(j, weights[b], n))
    unary = unary.astype(np.float32)
    losses = rng.standard_normal((batch, n, 2))
    changed = (unary - epsilon * losses).astype(np.float32)
    return np.concatenate([unary.reshape(batch, -1), weights], axis=1), changed.reshape(batch, -1)


def peer(potentials, n, at_once):
    """Values [batch] and seconds: one graph per instance, or one graph of all of them side by side.

    Also the seconds inside PyMaxflow's flow alone, without building the graphs.
    """
    groups = [potentials] if at_once else potentials[:, None]
    i, j = np.triu_indices(n, 1)
    values, inside = [], 0.0
    began = time.process_time()
    for rows in groups:
        batch = len(rows)
        h = rows[:, : 2 * n].reshape(batch, n, 2).astype(np.float64)
        w = rows[:, 2 * n :].astype(np.float64).ravel()
        first = n * np.arange(batch)[:, None]
        a, b = (first + i).ravel(), (first + j).ravel()
        c = 2 * (h[:, :, 1] - h[:, :, 0]).ravel() + np.bincount(a, w, n * batch) + np.bincount(b, w, n * batch)
        graph = maxflow.GraphFloat(n * batch, len(w))
        nodes = graph.add_grid_nodes(n * batch)
        graph.add_grid_tedges(nodes, np.maximum(c, 0), np.maximum(-c, 0))
        graph.add_edges(a, b, w, w)
        before = time.process_time()
        cut = graph.maxflow()
        inside += time.process_time() - before
        # The answers; sum c+ - cut = max of sum c z - sum w |z - z'|, twice the objective.
        graph.get_grid_segments(nodes)
        values.append(h[:, :, 0].sum() + 0.5 * (np.maximum(c, 0).sum() - cut))
    return np.array(values), time.process_time() - began, inside


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--example", default=root / "target/release/examples/supermodular_batch", help="the Rust side")
    add("--n", nargs="+", type=int, default=[15, 50, 100])
    add("--family", nargs="+", default=["1", "0.3", "3/n", "balanced", "hard"])
    add("--batch", type=int, default=100)
    add("--repeats", type=int, default=20)
    add("--epsilon", type=float, default=0.1)
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    if min(args.n + [args.batch, args.repeats - 1]) < 1:
        parser.error("n and batch are at least 1, repeats at least 2")

    rng = np.random.default_rng(args.seed)
    print(f"ms per batch of {args.batch}, shortest of {args.repeats}; PyMaxflow {maxflow.__version__}")
    print(COLUMNS.format("n", "sigma", "PyMaxflow", "at once", "flow only", "Supermodular", "ratio", "flow",
                         "scratch", "resolve", "ratio"))
    with tempfile.TemporaryDirectory() as folder:
        for n in args.n:
            for family in args.family:
                potentials, changed = instances(n, family, args.batch, args.epsilon, rng)
                file = Path(folder) / "instances"
                header = np.array([n, args.batch], "<u4").tobytes()
                file.write_bytes(header + potentials.astype("<f4").tobytes() + changed.astype("<f4").tobytes())
                again = np.concatenate([changed, potentials[:, 2 * n :]], axis=1)
                # Half of the peer's runs before ours, half after: a drift of the machine favours neither.
                both = [(at_once, []) for at_once in (False, True)]
                half = args.repeats // 2
                for at_once, runs in both:
                    runs += [peer(potentials, n, at_once) for _ in range(half)]
                words = [str(args.example), str(file), str(args.repeats)]
                ours = json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)
                for at_once, runs in both:
                    runs += [peer(potentials, n, at_once) for _ in range(args.repeats - half)]
                single, together = (1e3 * min(seconds for _, seconds, _ in runs) for _, runs in both)
                inside = 1e3 * min(inside for _, runs in both for _, _, inside in runs)
                values = np.array(ours["values"])
                magnitude = np.abs(potentials).sum(axis=1)
                second = peer(again, n, False)[0]
                for found, expected in [(0, both[0][1][0][0]), (1, second), (2, second)]:
                    wrong = np.abs(values[:, found] - expected) > 1e-9 * magnitude
                    if wrong.any():
                        sys.exit(f"n = {n}, {family}: {values[wrong, found]} against PyMaxflow's {expected[wrong]}")
                (total,) = both[1][1][0][0]
                if abs(values[:, 0].sum() - total) > 1e-9 * magnitude.sum():
                    sys.exit(f"n = {n}, {family}: {values[:, 0].sum()} in all against PyMaxflow's {total}")
                argmax, scratch, resolve = ours["argmax_ms"], ours["again_ms"], ours["resolve_ms"]
                times = [f"{ms:.3f}" for ms in (single, together, inside, argmax)]
                ratios = [f"{min(single, together) / argmax:.1f}", f"{inside / argmax:.1f}"]
                warm = [f"{scratch:.3f}", f"{resolve:.3f}", f"{scratch / resolve:.1f}"]
                print(COLUMNS.format(n, family, *times, *ratios, *warm), flush=True)


if __name__ == "__main__":
    main()
