#!/usr/bin/env bash
# Figure 4 of the paper: samples of every class, one Gaussian code to a row, without labels and with (`gumbel reproduce
# figure4`); and what an independent classifier says of two hundred codes in all classes. Leaves the records and
# agreement.jsonl in experiments/figure4/results and docs/digits.png. Usage: GUMBEL_DATA=DIR experiments/figure4.sh [FOLDER];
# needs Python with torch, numpy and safetensors (PYTHON chooses one). Runs that are there are not trained again.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/figure4} gumbel=${GUMBEL:-target/release/gumbel} python=${PYTHON:-python3} kept=experiments/figure4/results
"$gumbel" reproduce figure4 --out "$out" --quiet
for run in unsupervised semi-supervised; do
    cp "$out/figure4/results/$run-s0.json" "$kept/"
    "$gumbel" sample "$out/figure4/runs/$run-s0" --rows 200 --seed 1 --quiet --out "$out/$run.safetensors"
done
cp "$out/figure4/results/semi-supervised.png" docs/digits.png
"$python" experiments/classifier.py --dataset mnist --model "$out/mnist.pt" "$out"/{unsupervised,semi-supervised}.safetensors |
    tee "$kept/agreement.jsonl"
