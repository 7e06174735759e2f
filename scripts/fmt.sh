#!/usr/bin/env bash
# Formatting, and no line of source over 120 columns, comments included.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
if LC_ALL=C.UTF-8 grep -rnE --include='*.rs' '^.{121,}' crates; then
    echo "lines over 120 columns" >&2
    exit 1
fi
