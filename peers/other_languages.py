"""The C interface through ctypes beside a pipe to `gumbel solve`: batches of dense pairwise problems.

    cargo build --release -p gumbel-c
    cargo build --release -p gumbel-cli --no-default-features
    python3 peers/other_languages.py [--target target/release] [--rounds 201]

Needs nothing but the standard library. Values agree to 1e-5. Times are medians over rounds in which all take turns.
"""

import argparse
import array
import ctypes
import json
import random
import statistics
import subprocess
import time

parser = argparse.ArgumentParser()
parser.add_argument("--target", default="target/release", help="folder of libgumbel_c.so and gumbel")
parser.add_argument("--rounds", type=int, default=201)
parser.add_argument("--variables", type=int, default=15)
parser.add_argument("--batch", type=int, default=100)
args = parser.parse_args()
n, batch = args.variables, args.batch
pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
draw = random.Random(1).gauss

library = ctypes.CDLL(f"{args.target}/libgumbel_c.so")
library.gumbel_last_error.restype = ctypes.c_char_p
library.gumbel_potentials.restype = ctypes.c_size_t
library.gumbel_potentials.argtypes = [ctypes.c_void_p]
size, pointer = ctypes.c_size_t, ctypes.c_void_p
library.gumbel_solve.argtypes = [pointer, pointer, size, size, ctypes.c_double, size, pointer, pointer, pointer]


def check(code):
    if code:
        raise RuntimeError(library.gumbel_last_error().decode())


model = pointer()
check(library.gumbel_pairwise(size(n), ctypes.byref(model)))
width = library.gumbel_potentials(model)
pipe = subprocess.Popen(
    [f"{args.target}/gumbel", "solve", "--threads", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)

single = lambda: array.array("f", [draw(0, 1)])[0]  # noqa: E731
unary = [[single() for _ in range(n)] for _ in range(batch)]
weights = [[single() for _ in pairs] for _ in range(batch)]
z, values = array.array("I", [0] * (batch * n)), array.array("d", [0] * batch)
theta = array.array("f")
for u, w in zip(unary, weights):
    for x in u:
        theta.extend([0, x])
    theta.extend(w)


def in_place():
    """Numbers that lie in an array already, as those of NumPy or of another language do."""
    addresses = [a.buffer_info()[0] for a in (theta, z, values)]
    check(library.gumbel_solve(model, addresses[0], batch, width, 0.0, 1, addresses[1], addresses[2], None))
    return values


def ask(problems):
    """Every problem is sent and answered by itself; a batch at once would fill the pipes if it were larger."""
    for first in range(0, batch, 10):
        text = "".join(json.dumps(p, separators=(",", ":")) + "\n" for p in problems[first : first + 10])
        pipe.stdin.write(text.encode())
        pipe.stdin.flush()
        for _ in problems[first : first + 10]:
            yield json.loads(pipe.stdout.readline())


def dense():
    problems = [{"structure": "pairwise", "unary": u, "weights": w} for u, w in zip(unary, weights)]
    return [answer["value"] for answer in ask(problems)]


def listed():
    problems = [
        {"structure": "pairwise", "unary": u, "pairs": [[i, j, x] for (i, j), x in zip(pairs, w)]}
        for u, w in zip(unary, weights)
    ]
    return [answer["value"] for answer in ask(problems)]


answers = []


def json_alone():
    """What Python spends on writing the problems and reading the answers, without a pipe."""
    for u, w in zip(unary, weights):
        json.dumps({"structure": "pairwise", "unary": u, "weights": w}, separators=(",", ":")).encode()
    return [json.loads(answer)["value"] for answer in answers]


ways = {"C interface": in_place, "pipe, weights": dense, "pipe, pairs": listed, "its JSON alone": json_alone}
times = {name: [] for name in ways}
problems = [{"structure": "pairwise", "unary": u, "weights": w} for u, w in zip(unary, weights)]
answers = [json.dumps(answer) for answer in ask(problems)]
expected = dense()
for _ in range(args.rounds):
    for name, way in ways.items():
        began = time.perf_counter()
        found = way()
        times[name].append(time.perf_counter() - began)
        assert all(abs(a - b) < 1e-5 for a, b in zip(found, expected)), name
pipe.stdin.close()
pipe.wait()

least = statistics.median(times["C interface"])
print(f"ms per batch of {batch}, n = {n}, median of {args.rounds}")
for name, all_times in times.items():
    median = statistics.median(all_times)
    print(f"{name:15} {1e3 * median:8.3f}   {median / least:6.1f}")
