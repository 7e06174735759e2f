#!/usr/bin/env python3
"""Chain, tree and subset against vectorised numpy and torch-struct: the same instances, the values compared.

    cargo build --release -p gumbel --example sequences_batch
    python3 -m venv VENV && VENV/bin/pip install numpy torch torch-struct
    VENV/bin/python peers/sequences.py target/release/examples/sequences_batch

Instances: chain K = 32, T = 100; tree K = 8, n = 100; subset n = 100, k = 10; standard normal potentials, batch 100.
numpy works on the whole batch in f32, one call per position or edge, with the same lazy back pointers as the Rust side;
torch-struct (chain only) on the first four instances in f32, once per figure. Everything on one thread. Each figure is the fastest of `--rounds`
rounds, in microseconds per instance; the programs take turns. "ratio" is the peer's time over the Rust side's.

The Rust side's marginals and samples allocate their working memory per instance, its arg max per piece of a batch; its
process start and the reading of the file are outside the clock. numpy's inputs are arranged as it likes them, outside the
clock too.
"""

import argparse
import os
import struct
import subprocess
import sys
import tempfile
import time

for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]:
    os.environ[name] = "1"

import numpy as np  # noqa: E402  (after the number of threads is set)

BATCH = 100


def log_sum_exp(x, axis):
    top = x.max(axis=axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(x - top).sum(axis=axis))


def draw(logits, generator):
    """One index per row in proportion to exp(logits): inverse of the cumulative sum."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
    return (weights > generator.random((len(logits), 1)) * weights[:, -1:]).argmax(axis=1)


class Tree:
    """Messages along the edges (child, parent), children first; a chain is the tree with the edges (t, t + 1)."""

    def __init__(self, name, variables, values, edges, generator):
        self.name, self.n, self.k, self.edges = name, variables, values, edges
        self.unary = generator.standard_normal((BATCH, variables, values), dtype=np.float32)
        self.tables = generator.standard_normal((BATCH, len(edges), values, values), dtype=np.float32)
        # [edges, batch, child, parent] and [n, batch, K], contiguous: what numpy likes.
        self.by_edge = np.ascontiguousarray(self.tables.transpose(1, 0, 2, 3))
        self.by_variable = np.ascontiguousarray(self.unary.transpose(1, 0, 2))
        self.rows = np.arange(BATCH)
        self.root = variables - 1

    def bytes(self):
        flat = np.concatenate([self.unary.reshape(BATCH, -1), self.tables.reshape(BATCH, -1)], axis=1)
        given = self.edges if self.name == "tree" else []
        head = self.name.ljust(8).encode() + struct.pack("<4I", BATCH, self.n, self.k, len(given))
        return head + np.array(given, dtype="<u4").tobytes() + flat.astype("<f4").tobytes()

    def argmax(self):
        beliefs = self.by_variable.copy()
        for e, (child, parent) in enumerate(self.edges):
            beliefs[parent] += (beliefs[child][:, :, None] + self.by_edge[e]).max(axis=1)
        return self.decode(beliefs, lambda scores: scores.argmax(axis=1))

    def sample(self, generator):
        return self.decode(self.filter()[0], lambda scores: draw(scores, generator))

    def decode(self, beliefs, choose):
        z = np.empty((self.n, BATCH), dtype=np.int64)
        z[self.root] = choose(beliefs[self.root])
        for e in reversed(range(len(self.edges))):
            child, parent = self.edges[e]
            z[child] = choose(beliefs[child] + self.by_edge[e, self.rows, :, z[parent]])
        return z.T

    def filter(self):
        beliefs, messages = self.by_variable.copy(), np.empty((len(self.edges), BATCH, self.k), dtype=np.float32)
        for e, (child, parent) in enumerate(self.edges):
            messages[e] = log_sum_exp(beliefs[child][:, :, None] + self.by_edge[e], axis=1)
            beliefs[parent] += messages[e]
        return beliefs, messages

    def marginals(self):
        beliefs, messages = self.filter()
        log_partition = log_sum_exp(beliefs[self.root], axis=1)
        q, pairs = np.empty_like(beliefs), np.empty_like(self.by_edge)
        q[self.root] = np.exp(beliefs[self.root] - log_partition[:, None])
        for e in reversed(range(len(self.edges))):
            child, parent = self.edges[e]
            conditional = np.exp(beliefs[child][:, :, None] + self.by_edge[e] - messages[e][:, None, :])
            np.multiply(conditional, q[parent][:, None, :], out=pairs[e])
            q[child] = pairs[e].sum(axis=2)
        return log_partition, q, pairs

    def flat_marginals(self, found):
        log_partition, q, pairs = found
        parts = [q.transpose(1, 0, 2).reshape(BATCH, -1), pairs.transpose(1, 0, 2, 3).reshape(BATCH, -1)]
        return log_partition, np.concatenate(parts, axis=1)

    def scores(self, z):
        score = np.take_along_axis(self.unary, z[:, :, None], axis=2).astype(np.float64).sum(axis=(1, 2))
        for e, (child, parent) in enumerate(self.edges):
            score += self.tables[self.rows, e, z[:, child], z[:, parent]]
        return score


class TorchStruct:
    """The chain in torch-struct: log potentials [batch, T - 1, later, earlier]."""

    BATCH = 4  # of the same instances; its scan needs some 100 MB for each

    def __init__(self, chain):
        import torch
        import torch_struct

        torch.set_num_threads(1)
        torch.distributions.Distribution.set_default_validate_args(False)
        joint = chain.tables[: self.BATCH] + chain.unary[: self.BATCH, 1:, None, :]
        joint[:, 0] += chain.unary[: self.BATCH, 0, :, None]
        self.potentials = torch.from_numpy(np.ascontiguousarray(joint.transpose(0, 1, 3, 2)))
        self.new = lambda: torch_struct.LinearChainCRF(self.potentials)

    def argmax(self):
        return self.new().argmax

    def marginals(self):
        crf = self.new()
        return crf.partition, crf.marginals

    def sample(self, _):
        return self.new().sample((1,))


class Subset:
    def __init__(self, elements, chosen, generator):
        self.name, self.n, self.k = "subset", elements, chosen
        self.h = generator.standard_normal((BATCH, elements), dtype=np.float32)

    def bytes(self):
        return b"subset  " + struct.pack("<4I", BATCH, self.n, self.k, 0) + self.h.astype("<f4").tobytes()

    def argmax(self):
        z = np.zeros((BATCH, self.n), dtype=np.int64)
        np.put_along_axis(z, np.argpartition(self.h, self.n - self.k, axis=1)[:, self.n - self.k :], 1, axis=1)
        return z

    def forward(self):
        """ln F[i, b, j]: sums over the sets of j of the first i elements."""
        table = np.full((self.n + 1, BATCH, self.k + 1), -np.inf)
        table[:, :, 0] = 0
        for i in range(self.n):
            table[i + 1, :, 1:] = np.logaddexp(table[i, :, 1:], table[i, :, :-1] + self.h[:, i, None])
        return table

    def taken(self, table, i):
        """q(element i is chosen | j of the first i + 1), for j = 1..k."""
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(np.exp(table[i, :, :-1] + self.h[:, i, None] - table[i + 1, :, 1:]))

    def marginals(self):
        table = self.forward()
        marginals, count = np.empty((BATCH, self.n)), np.zeros((BATCH, self.k + 1))
        count[:, self.k] = 1
        for i in reversed(range(self.n)):
            moved = count[:, 1:] * self.taken(table, i)
            marginals[:, i] = moved.sum(axis=1)
            count[:, :-1] += moved
            count[:, 1:] -= moved
        return table[self.n, :, self.k], marginals

    def flat_marginals(self, found):
        return found

    def sample(self, generator):
        table, z, left = self.forward(), np.zeros((BATCH, self.n), dtype=np.int64), np.full(BATCH, self.k)
        rows = np.arange(BATCH)
        for i in reversed(range(self.n)):
            probability = self.taken(table, i)[rows, np.maximum(left - 1, 0)] * (left > 0)
            z[:, i] = generator.random(BATCH) < probability
            left = left - z[:, i]
        return z

    def scores(self, z):
        return (self.h.astype(np.float64) * z).sum(axis=1)


def seconds(run):
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def compare(program, structure, folder, rounds, torch_struct):
    path, out = os.path.join(folder, structure.name), os.path.join(folder, "out")
    with open(path, "wb") as file:
        file.write(structure.bytes())
    generator = np.random.default_rng(1)
    for operation in ["argmax", "marginals", "sample"]:
        arguments = [generator] if operation == "sample" else []
        peers = {"numpy": structure, **({"torch-struct": torch_struct} if torch_struct else {})}
        times, results = {name: [] for name in peers}, {}
        rust = []
        for round_number in range(rounds):
            for name, peer in peers.items():
                if name == "torch-struct" and round_number > 0:
                    continue  # slow, and far behind
                spent, results[name] = seconds(lambda peer=peer: getattr(peer, operation)(*arguments))
                times[name].append(spent)
            command = [program, path, operation, "5", "1", out]
            rust.append(float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        found, agreement = np.fromfile(out, dtype="<f8"), {name: "" for name in peers}
        if operation == "argmax":
            agreement["numpy"] = f"values differ by {np.abs(structure.scores(results['numpy']) - found).max():.1e}"
            if torch_struct:
                value = (results["torch-struct"] * torch_struct.potentials).detach().double().sum(dim=(1, 2, 3)).numpy()
                agreement["torch-struct"] = f"values differ by {np.abs(value - found[: len(value)]).max():.1e}"
        if operation == "marginals":
            log_partition, marginals = structure.flat_marginals(results["numpy"])
            off = np.abs(log_partition - found[:BATCH]).max()
            off_q = np.abs(marginals.ravel() - found[BATCH:]).max()
            agreement["numpy"] = f"ln Z differs by {off:.1e}, marginals by {off_q:.1e}"
            if torch_struct:
                log_partition, pairs = (x.detach().numpy() for x in results["torch-struct"])
                few = len(log_partition)
                mine = found[BATCH:].reshape(BATCH, -1)[:few, structure.n * structure.k :]
                off = np.abs(log_partition - found[:few]).max()
                off_q = np.abs(pairs.transpose(0, 1, 3, 2).reshape(few, -1) - mine).max()
                agreement["torch-struct"] = f"ln Z differs by {off:.1e}, marginals by {off_q:.1e}"
        for name, spent in times.items():
            ours, theirs = 1e6 * min(rust) / BATCH, 1e6 * min(spent) / getattr(peers[name], "BATCH", BATCH)
            line = f"{structure.name:7} {operation:10} {ours:10.2f} {name:13} {theirs:10.2f} {theirs / ours:8.1f}"
            print(line, agreement[name], flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the example sequences_batch, built in release mode")
    parser.add_argument("--rounds", type=int, default=7, help="rounds per figure (default 7)")
    parser.add_argument("--only", choices=["chain", "tree", "subset"], help="one structure")
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    chain = Tree("chain", 100, 32, [(t, t + 1) for t in range(99)], generator)
    # A random recursive tree, named so that children come first.
    tree = Tree("tree", 100, 8, [(i, int(generator.integers(i + 1, 100))) for i in range(99)], generator)
    subset = Subset(100, 10, generator)
    try:
        torch_struct = TorchStruct(chain)
    except ImportError as error:
        print(f"torch-struct is left out: {error}", file=sys.stderr)
        torch_struct = None
    print("            microseconds per instance: gumbel, peer; ratio")
    with tempfile.TemporaryDirectory() as folder:
        for structure in [chain, tree, subset]:
            if args.only in (None, structure.name):
                peer = torch_struct if structure is chain else None
                compare(args.program, structure, folder, args.rounds, peer)


if __name__ == "__main__":
    main()
