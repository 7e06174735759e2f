"""Permutations, spanning trees, arborescences: this crate beside SciPy, lapx, lapjv and networkx.

One run, one thread, the same f32 instances; the values of all maxima are compared. Times are per
instance: of every few instances the least over the repetitions, then the mean. The Python side is called once per instance
in a plain loop, with contiguous float64 input made before the clock starts (negated where a solver minimises). A ratio
above 1: this crate is faster. "again us" is the time of solving again after a change of one row.

    pip install numpy scipy lapx lapjv networkx
    cargo build --release -p gumbel --example matchings_batch
    python peers/matchings.py --rust target/release/examples/matchings_batch
"""

import argparse
import os
import struct
import subprocess
import tempfile
import time

import numpy as np


def least(function, nodes, instances, repetitions):
    """Seconds per instance (of every piece the least over the repetitions) and the results."""
    piece = max(400 // nodes, 1)
    pieces = [instances[i : i + piece] for i in range(0, len(instances), piece)]
    best = [float("inf")] * len(pieces)
    results = [None] * len(pieces)
    for _ in range(repetitions):
        for i, part in enumerate(pieces):
            start = time.perf_counter()
            results[i] = [function(x) for x in part]
            best[i] = min(best[i], time.perf_counter() - start)
    return sum(best) / len(instances), [result for part in results for result in part]


def rust(program, kind, nodes, potentials, repetitions):
    """Microseconds per instance (and of solving again, for permutations) and the values."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(struct.pack("<III", kind, nodes, len(potentials)))
        file.write(np.ascontiguousarray(potentials, dtype="<f4").tobytes())
    try:
        done = subprocess.run([program, file.name, str(repetitions)], capture_output=True, text=True, check=True)
    finally:
        os.unlink(file.name)
    numbers = [float(line) for line in done.stdout.split()]
    head = 2 if kind == 0 else 1
    return numbers[:head], np.array(numbers[head:])


def scores(distribution, shape, rng):
    if distribution == "uniform":
        return rng.random(shape, dtype=np.float32)
    if distribution == "normal":
        return rng.standard_normal(shape, dtype=np.float32)
    if distribution == "integer":
        return rng.integers(0, 10, shape).astype(np.float32)
    raise ValueError(distribution)


def agree(name, found, expected):
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-4), f"{name}: {found[:4]}, expected {expected[:4]}"


def permutations(options, rng):
    import lap
    import lapjv
    from scipy.optimize import linear_sum_assignment

    print(f"{'permutation':12}{'n':>5}{'rust us':>10}{'again us':>10}{'scipy':>8}{'lapx':>8}{'lapjv':>8}   (times rust)")
    for distribution in ["uniform", "normal", "integer"]:
        for n in options.sizes:
            h = scores(distribution, (options.batch, n, n), rng)
            costs = list(-h.astype(np.float64))
            rows = np.arange(n)
            peers = {
                "scipy": lambda c: linear_sum_assignment(c)[1],
                "lapx": lambda c: lap.lapjv(c, return_cost=False)[0],
                "lapjv": lambda c: lapjv.lapjv(c)[0],
            }
            (mine, again), values = rust(options.rust, 0, n, h, options.repetitions)
            ratios = []
            for name, solve in peers.items():
                seconds, columns = least(solve, n, costs, options.repetitions)
                agree(name, values, [-c[rows, z].sum() for c, z in zip(costs, columns)])
                ratios.append(seconds * 1e6 / mine)
            print(f"{distribution:12}{n:5}{mine:10.2f}{again:10.2f}" + "".join(f"{r:8.2f}" for r in ratios), flush=True)


def spanning_trees(options, rng):
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    print(f"\n{'spanning tree':14}{'n':>5}{'rust us':>10}{'scipy':>8}   (times rust)")
    for n in options.sizes:
        h = scores("normal", (options.batch, n * (n - 1) // 2), rng)
        upper = np.triu_indices(n, 1)
        # SciPy takes a zero for no edge: all weights are moved by a constant, which every tree pays n - 1 times.
        shift = 100.0
        graphs = [csr_array((shift - x.astype(np.float64), upper), shape=(n, n)) for x in h]
        (mine,), values = rust(options.rust, 1, n, h, options.repetitions)
        seconds, trees = least(minimum_spanning_tree, n, graphs, options.repetitions)
        agree("scipy", values, [shift * (n - 1) - t.sum() for t in trees])
        print(f"{'complete':14}{n:5}{mine:10.2f}{seconds * 1e6 / mine:8.2f}", flush=True)


def arborescences(options, rng):
    import networkx

    def solve(graph):
        return networkx.maximum_spanning_arborescence(graph)

    print(f"\n{'arborescence':14}{'n':>5}{'rust us':>10}{'networkx':>10}   (times rust)")
    for n in options.sizes:
        count = 2 if n > 50 else 5
        h = scores("normal", (count, n, n), rng)
        graphs = []
        for x in h:
            graph = networkx.DiGraph()
            graph.add_nodes_from(range(n))
            # No edges into node 0: it is the root.
            edges = [(p, c, float(x[p, c])) for p in range(n) for c in range(1, n) if p != c]
            graph.add_weighted_edges_from(edges)
            graphs.append(graph)
        (mine,), values = rust(options.rust, 2, n, h, options.repetitions)
        seconds, trees = least(solve, n, graphs, 1)
        agree("networkx", values, [sum(d["weight"] for _, _, d in t.edges(data=True)) for t in trees])
        print(f"{'complete':14}{n:5}{mine:10.2f}{seconds * 1e6 / mine:10.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rust", default="target/release/examples/matchings_batch", help="the example program")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 20, 50, 100, 200])
    parser.add_argument("--batch", type=int, default=100, help="instances")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["permutation", "spanning-tree", "arborescence"])
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.only in (None, "permutation"):
        permutations(options, rng)
    if options.only in (None, "spanning-tree"):
        spanning_trees(options, rng)
    if options.only in (None, "arborescence"):
        arborescences(options, rng)


if __name__ == "__main__":
    main()
