#!/usr/bin/env bash
# The wheels of the Python package, into a folder, and what they must keep: one for every Python from 3.10 on (abi3),
# one for the free-threaded 3.14. Each is smaller than 8 MB; the first is looked through by abi3audit, installed into an
# empty environment with nothing but NumPy, imported in less than a tenth of a second beside it, and its command solves.
# The second is built without an interpreter and is run only where there is one (python3.14t). PYTHON chooses the other.
# Their tags name the C library of this machine as the oldest.
set -euo pipefail
if [ $# -ne 1 ]; then
    echo "usage: scripts/wheels.sh FOLDER" >&2
    exit 2
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
tools=$folder/tools
[ -x "$tools/bin/python" ] || "${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/python" -m pip install --quiet --upgrade "maturin>=1.9,<2" abi3audit
rm -f "$folder"/*.whl
cd "$root/python"
"$tools/bin/maturin" build --release --out "$folder"
"$tools/bin/maturin" build --release --out "$folder" --interpreter python3.14t

for wheel in "$folder"/*.whl; do
    bytes=$(stat --format %s "$wheel")
    echo "$(basename "$wheel"): $bytes bytes"
    if [ "$bytes" -ge 8000000 ]; then
        echo "$wheel: $bytes bytes, expected less than 8000000" >&2
        exit 1
    fi
done
"$tools/bin/abi3audit" --strict "$folder"/*abi3*.whl

try() { # INTERPRETER WHEEL
    local empty=$folder/empty
    rm -rf "$empty"
    "$1" -m venv "$empty"
    "$empty/bin/python" -m pip install --quiet "$2"
    cd "$folder" # not where the sources are
    "$empty/bin/python" - << 'CODE'
import time

import numpy

begin = time.perf_counter()
import gumbel_argmax as ga

took = time.perf_counter() - begin
assert took < 0.1, f"importing took {took} s beside NumPy: expected less than 0.1"
assert ga.Chain(3, 2).solve(numpy.zeros(14)).proved
print(f"imported in {1e3 * took:.0f} ms beside NumPy {numpy.__version__}")
CODE
    "$empty/bin/python" -m pip list --format freeze | grep -v '^pip=' | tr '\n' ' '
    echo '{"structure":"pairwise","unary":[1,-2,0.5],"pairs":[[0,1,3],[1,2,-1]]}' | "$empty/bin/gumbel" solve
}

try "${PYTHON:-python3}" "$folder"/*abi3*.whl
if command -v python3.14t > /dev/null; then
    try python3.14t "$folder"/*cp314t*.whl
else
    echo "SKIPPED: the free-threaded wheel is built, but there is no python3.14t to run it"
fi
