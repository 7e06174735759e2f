#!/usr/bin/env bash
# Figure 5 of the paper: faces with glasses, smiling, male, on and off (`gumbel reproduce figure5`: trains on the CelebA subset); and
# whether an independent classifier sees what was switched, for 200 codes of the prior and 200 test images. Leaves the record and
# agreement.jsonl in experiments/figure5/results and docs/faces.png. Usage: GUMBEL_DATA=DIR experiments/figure5.sh [FOLDER]; needs
# Python with torch, numpy, safetensors and pillow (PYTHON chooses one). A run that is there is not trained again.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/figure5} gumbel=${GUMBEL:-target/release/gumbel} python=${PYTHON:-python3} kept=experiments/figure5/results
"$gumbel" reproduce figure5 --out "$out" --quiet
cp "$out/figure5/results/faces-s0.json" "$kept/"
faces=$out/figure5/runs/faces-s0
# No test images: the licence of the data set forbids to show them.
"$gumbel" attributes "$faces" --rows 6 --encoded 0 --quiet --out docs/faces.png
"$gumbel" attributes "$faces" --rows 200 --encoded 200 --quiet --out "$out/faces.safetensors"
"$python" experiments/classifier.py --dataset celeba --model "$out/faces.pt" "$out/faces.safetensors" | tee "$kept/agreement.jsonl"
