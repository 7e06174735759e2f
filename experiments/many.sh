#!/usr/bin/env bash
# Two hundred binary variables, Fashion-MNIST, five epochs: what direct optimisation needs there. Prints the table of
# docs/direct.md (needs jq). Usage: GUMBEL_DATA=DIR experiments/many.sh [FOLDER]; about forty minutes on two cores, most
# of it for the rows with n + 1 passes.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/many}
source experiments/train.sh
common="--dataset fashion-mnist --latent binary:200 --kl on --epochs 5 --eval-every 5 --eval-samples 1 --threads 1"
small() { echo "--epsilon $1 --epsilon-min $1"; }
train default $common &
train straight-through $common --estimator straight-through
wait
train search-0.3 $common --joint search --rao-blackwell=false --rounds 16 $(small 0.3) &
train search-0.1 $common --joint search --rao-blackwell=false --rounds 16 $(small 0.1)
wait
train slopes-0.1 $common --joint search --rounds 0 --rao-blackwell $(small 0.1) &
train slopes-0.003 $common --joint search --rounds 0 --rao-blackwell $(small 0.003)
wait
train expectation-0.3 $common --joint off --rao-blackwell $(small 0.3) &
train expectation-0.01 $common --joint off --rao-blackwell $(small 0.01)
wait
train two-samples $common --samples 2 &
train local-expectation $common --estimator local-expectation
wait
for run in "$out"/*/; do
    jq -r --arg run "$(basename "$run")" 'select(.split == "test") |
        "| \($run) | \(.bound * 100 | round / 100) | \(.kl * 10 | round / 10) |"' "$run/metrics.jsonl" | tail -1
done
