#!/usr/bin/env bash
# The Python package: makes an environment in a folder, builds and installs ./python with what its tests need, and runs
# them. An environment that is there already is used again. With GUMBEL_TORCH=1 PyTorch is installed too (large); tests
# of its layer are skipped where it is missing. PYTHON chooses the interpreter.
set -euo pipefail
if [ $# -ne 1 ]; then
    echo "usage: scripts/python.sh FOLDER" >&2
    exit 2
fi
folder=$1
root=$(cd "$(dirname "$0")/.." && pwd)
cargo fmt --manifest-path "$root/python/Cargo.toml" --check
if LC_ALL=C.UTF-8 grep -rnE --include='*.rs' --include='*.py' --include='*.pyi' '^.{121,}' "$root/python" \
    --exclude-dir=target; then
    echo "lines over 120 columns" >&2
    exit 1
fi
[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
folder=$(cd "$folder" && pwd)
extras=test
if [ "${GUMBEL_TORCH:-0}" = 1 ]; then
    extras=test,torch
fi
"$folder/bin/python" -m pip install --quiet --upgrade "$root/python[$extras]"
# From elsewhere, so that the installed package is tested, not the folder. The stubs of the native module are compared
# with the module.
cd "$folder"
"$folder/bin/python" -m mypy.stubtest gumbel_argmax._native
"$folder/bin/python" -m mypy --config-file "$root/python/pyproject.toml" -p gumbel_argmax
exec "$folder/bin/python" -m pytest --quiet -c "$root/python/pyproject.toml" --rootdir "$root/python" \
    -p no:cacheprovider "$root/python/tests"
