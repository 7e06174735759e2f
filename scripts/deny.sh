#!/usr/bin/env bash
# Licences, duplicate and foreign sources, and advisories of the dependencies (deny.toml), with cargo-deny.
# Without the tool nothing is checked; without the data base of advisories, and without a network, everything else is.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v cargo-deny > /dev/null; then
    echo "SKIPPED: cargo-deny is not installed (cargo install cargo-deny)"
    exit 0
fi
cargo deny --offline check licenses bans sources
# The data base is fetched where there is a network; an old one is better than none.
found=$(mktemp)
trap 'rm -f "$found"' EXIT
if cargo deny check advisories 2> "$found" || cargo deny --offline check advisories 2> "$found"; then
    exit 0
fi
if ! ls -d "${CARGO_HOME:-$HOME/.cargo}"/advisory-dbs/*/ > /dev/null 2>&1; then
    echo "SKIPPED: no data base of advisories, and no network to fetch it"
    exit 0
fi
cat "$found" >&2
exit 1
