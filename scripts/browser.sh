#!/usr/bin/env bash
# Looks at the page of the committed records in headless Chromium: scripts/browser.sh GUMBEL FOLDER. GUMBEL is the program,
# FOLDER takes a virtual environment with playwright, which is made once. Says SKIPPED where there is no Chromium
# (CHROMIUM names it, /usr/bin/chromium is tried) or no such package to be had.
set -euo pipefail
gumbel=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")
cd "$(dirname "$0")/.."
if [ ! -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
    echo "SKIPPED: no Chromium"
    exit
fi
if ! { "$folder/bin/python" -c 'import playwright' || { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet playwright; }; } 2> /dev/null; then
    echo "SKIPPED: no playwright for Python to be had"
    exit
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$gumbel" reproduce all --results experiments --out "$out" --quiet
"$folder/bin/python" scripts/reproduce.py "$out/report/index.html"
