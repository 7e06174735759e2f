#!/usr/bin/env python3
"""Super-modular arg max: PyMaxflow against gumbel's Supermodular, the same instances in one run, one thread each.

Instances: u ~ N(0,1) + difference of two Gumbels, weights |N(0,1)| * sigma. "balanced" subtracts half of a variable's
weights from its u, which makes the cut as hard as it can be. PyMaxflow's graph is built from arrays (add_grid_tedges,
add_edges); its time is given with and without the building, the ratio is to the time with it, as from potentials.
Values must agree to 1e-9 of the magnitude.

The last columns: solving again after unaries changed by -eps * losses, from scratch and by `resolve`.

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

COLUMNS = "{:>5} {:>9} {:>9} {:>11} {:>11} {:>9} {:>7} {:>7} {:>9} {:>9} {:>7}"


def instances(n, family, batch, epsilon, rng):
    """Potentials [batch, P] and changed unaries [batch, 2n], f32."""
    pairs = n * (n - 1) // 2
    sigma = {"1": 1.0, "0.3": 0.3, "3/n": 3.0 / n, "balanced": 1.0, "bal-hard": 1.0}[family]
    weights = (sigma * np.abs(rng.standard_normal((batch, pairs)))).astype(np.float32)
    unary = rng.gumbel(size=(batch, n, 2))
    unary[:, :, 1] += rng.standard_normal((batch, n))
    if family.startswith("bal"):
        if family == "bal-hard":
            unary *= np.sqrt(n)
        i, j = np.triu_indices(n, 1)
        for b in range(batch):
            unary[b, :, 1] -= 0.5 * (np.bincount(i, weights[b], n) + np.bincount(j, weights[b], n))
    unary = unary.astype(np.float32)
    # The losses of the direct estimate: the change of the loss when one variable flips.
    losses = rng.standard_normal((batch, n, 2))
    changed = (unary - epsilon * losses).astype(np.float32)
    return np.concatenate([unary.reshape(batch, -1), weights], axis=1), changed.reshape(batch, -1)


def peer(potentials, n):
    """Values [batch], seconds with and without building the graphs."""
    i, j = np.triu_indices(n, 1)
    i, j = i.astype(np.int64), j.astype(np.int64)
    values, inside = [], 0.0
    began = time.perf_counter()
    for row in potentials:
        h = row[: 2 * n].reshape(n, 2).astype(np.float64)
        w = row[2 * n :].astype(np.float64)
        c = 2 * (h[:, 1] - h[:, 0]) + np.bincount(i, w, n) + np.bincount(j, w, n)
        graph = maxflow.GraphFloat(n, len(w))
        nodes = graph.add_grid_nodes(n)
        graph.add_grid_tedges(nodes, np.maximum(c, 0), np.maximum(-c, 0))
        graph.add_edges(i, j, w, w)
        before = time.perf_counter()
        cut = graph.maxflow()
        inside += time.perf_counter() - before
        # sum c+ - cut = max of sum c z - sum w |z - z'|, twice the objective.
        values.append(h[:, 0].sum() + 0.5 * (np.maximum(c, 0).sum() - cut))
    return np.array(values), time.perf_counter() - began, inside


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--example", default=root / "target/release/examples/supermodular_batch", help="the Rust side")
    add("--n", nargs="+", type=int, default=[15, 50, 100])
    add("--family", nargs="+", default=["1", "0.3", "3/n", "balanced", "bal-hard"])
    add("--batch", type=int, default=100)
    add("--repeats", type=int, default=20)
    add("--epsilon", type=float, default=0.1)
    add("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    print(f"ms per batch of {args.batch}, shortest of {args.repeats}; PyMaxflow {maxflow.__version__}")
    print(COLUMNS.format("n", "sigma", "PyMaxflow", "(flow only)", "Supermodular", "ratio", "(flow)", "",
                         "again", "resolve", "ratio"))
    with tempfile.TemporaryDirectory() as folder:
        for n in args.n:
            for family in args.family:
                potentials, changed = instances(n, family, args.batch, args.epsilon, rng)
                file = Path(folder) / "instances"
                header = np.array([n, args.batch], "<u4").tobytes()
                file.write_bytes(header + potentials.astype("<f4").tobytes() + changed.astype("<f4").tobytes())
                again = np.concatenate([changed, potentials[:, 2 * n :]], axis=1)
                # Half of the peer's runs before ours, half after: a drift of the machine favours neither.
                runs = [peer(potentials, n) for _ in range(args.repeats // 2)]
                words = [str(args.example), str(file), str(args.repeats)]
                done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
                ours = json.loads(done.stdout)
                runs += [peer(potentials, n) for _ in range(args.repeats - args.repeats // 2)]
                total, inside = 1e3 * min(r[1] for r in runs), 1e3 * min(r[2] for r in runs)
                values = np.array(ours["values"])
                magnitude = np.abs(potentials).sum(axis=1)
                for found, expected in [(0, runs[0][0]), (1, peer(again, n)[0]), (2, peer(again, n)[0])]:
                    wrong = np.abs(values[:, found] - expected) > 1e-9 * magnitude
                    if wrong.any():
                        sys.exit(f"n = {n}, {family}: {values[wrong, found]} against PyMaxflow's {expected[wrong]}")
                print(COLUMNS.format(n, family, f"{total:.3f}", f"{inside:.3f}", f"{ours['argmax_ms']:.3f}",
                                     f"{total / ours['argmax_ms']:.1f}", f"{inside / ours['argmax_ms']:.1f}", "",
                                     f"{ours['again_ms']:.3f}", f"{ours['resolve_ms']:.3f}",
                                     f"{ours['again_ms'] / ours['resolve_ms']:.1f}"), flush=True)


if __name__ == "__main__":
    main()
