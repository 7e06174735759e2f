#!/usr/bin/env bash
# A short run of the main command with a program that is built already: smoke.sh PROGRAM
set -euo pipefail
program=${1:?usage: smoke.sh PROGRAM}
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
"$program" train --epochs 1 --train-limit 10000 --eval-limit 2000 --out "$run/glyphs"
for file in config.toml metrics.jsonl summary.json best.safetensors samples.png reconstructions.png curves.svg; do
    [ -s "$run/glyphs/$file" ] || { echo "the run left no $file" >&2; exit 1; }
done
"$program" evaluate "$run/glyphs"
"$program" list estimators > "$run/list"
grep -q '^direct' "$run/list" || { echo "list does not begin a line with direct" >&2; exit 1; }
