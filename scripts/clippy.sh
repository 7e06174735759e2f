#!/usr/bin/env bash
# Lints, warnings denied: with Burn, and of the program without it.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo clippy --workspace --all-targets -- -D warnings
cargo clippy -p gumbel-cli --no-default-features -- -D warnings
