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
if ! cargo deny check advisories; then
    if [ -d "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs" ] && cargo deny --offline check --disable-fetch advisories; then
        exit 0
    fi
    echo "SKIPPED: no data base of advisories, and no network to fetch it"
fi
