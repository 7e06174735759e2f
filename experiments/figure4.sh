#!/usr/bin/env bash
# Figure 4 of the paper: samples of every class, one Gaussian code to a row, without labels and with; and what an
# independent classifier says of them. Usage: GUMBEL_DATA=DIR experiments/figure4.sh [FOLDER]; needs Python with torch,
# numpy and safetensors (PYTHON chooses one). Runs that are there are not trained again.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/figure4} gumbel=${GUMBEL:-target/release/gumbel} python=${PYTHON:-python3} epochs=${EPOCHS:-60}
mkdir -p "$out"
common=(train --quiet --dataset mnist --continuous rows:30 --preset paper --rao-blackwell=true --kl on --continuous-kl=true --threads "${THREADS:-1}" --eval-every 10 --resume
    --checkpoint-every 2500)
"$gumbel" "${common[@]}" --epochs "$epochs" --latent categorical:10 --out "$out/unsupervised"
"$gumbel" "${common[@]}" --labels 100 --supervision "phases:1200,$epochs" --out "$out/semi-supervised"
for run in unsupervised semi-supervised; do
    "$gumbel" sample "$out/$run" --rows 8 --seed 1 --out "$out/$run.png"
    "$gumbel" sample "$out/$run" --rows 1000 --seed 1 --out "$out/$run.safetensors"
done
"$python" experiments/classifier.py --dataset mnist --model "$out/mnist.pt" "$out"/*.safetensors | tee "$out/agreement.jsonl"
