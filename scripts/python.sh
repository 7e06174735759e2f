#!/usr/bin/env bash
# The Python package: makes an environment in a folder, builds and installs ./python with what its tests need, and runs
# them. An environment that is there already is used again. GUMBEL_EXTRAS=torch,jax installs these too, once (PyTorch
# takes several GB); tests of their layers are skipped where they are missing. PYTHON chooses the interpreter. The native
# module is built quickly (the profile "gate"); MATURIN_PEP517_ARGS= builds what users get.
set -euo pipefail
GUMBEL_EXTRAS=${GUMBEL_EXTRAS-}
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
export MATURIN_PEP517_ARGS=${MATURIN_PEP517_ARGS---profile gate}
"$folder/bin/python" -m pip install --quiet --upgrade "$root/python[test]"
for extra in ${GUMBEL_EXTRAS//,/ }; do
    "$folder/bin/python" -c "import $extra" 2> /dev/null ||
        timeout 900 "$folder/bin/python" -m pip install --quiet "$extra" || echo "$extra could not be installed"
done
for extra in torch jax; do
    "$folder/bin/python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$extra') is None)" ||
        echo "SKIPPED: tests of the layer for $extra, which is not installed (GUMBEL_EXTRAS=$extra installs it)"
done
# From elsewhere, so that the installed package is tested, not the folder. The stubs of the native module are compared
# with the module.
cd "$folder"
"$folder/bin/python" -m mypy.stubtest gumbel_argmax._native
"$folder/bin/python" -m mypy --config-file "$root/python/pyproject.toml" -p gumbel_argmax
exec "$folder/bin/python" -m pytest --quiet -c "$root/python/pyproject.toml" --rootdir "$root/python" \
    -p no:cacheprovider "$root/python/tests"
