#!/usr/bin/env bash
# Two hundred binary variables, Fashion-MNIST, KL on, five epochs, seed 0: what direct optimisation needs there. Prints the
# table of docs/direct.md (needs jq). Usage: GUMBEL_DATA=DIR experiments/many.sh [FOLDER]; about ten minutes on two cores,
# most of it for the rows with n + 1 passes. THREADS=1 trains with one thread; the results are the same.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/many}
source experiments/train.sh
rows=()
row() { # NAME, decoder passes or - where the run has counted them, "what it is", flags...
    local name=$1 passes=$2 what=$3
    shift 3
    train "$name" --quiet --dataset fashion-mnist --latent binary:200 --kl on --epochs 5 --eval-every 5 --eval-samples 1 \
        --threads "${THREADS:-2}" "$@" > /dev/null
    [ "$passes" != - ] || passes=$(jq 'select(.split == "train").search_rows | round' "$out/$name/metrics.jsonl" | tail -1)
    local found='select(.split == "test") | "\(.bound * 100 | round / 100) | \(.kl * 10 | round / 10)"'
    rows+=("| $what | $(jq -r "$found" "$out/$name/metrics.jsonl" | tail -1) | $passes |")
}
small() { echo "--epsilon $1 --epsilon-min $1"; }
row straight-through 1 "straight-through Gumbel-Softmax" --estimator straight-through
row search-0.3 - "search by slopes, epsilon 0.3" --joint search --rao-blackwell=false --rounds 16 $(small 0.3)
row search-0.1 - "search by slopes, epsilon 0.1" --joint search --rao-blackwell=false --rounds 16 $(small 0.1)
row expectation-0.3 201 "expectation from the loss of every change, epsilon 0.3" --joint off --rao-blackwell $(small 0.3)
row expectation-0.01 201 "the same, epsilon 0.01" --joint off --rao-blackwell $(small 0.01)
row local-expectation 201 "the same in the limit, \`local-expectation\`" --estimator local-expectation
row slopes-0.1 2 "expectation from slopes, epsilon 0.1" --joint search --rounds 0 --rao-blackwell $(small 0.1)
row slopes-0.01 2 "the same, epsilon 0.01" --joint search --rounds 0 --rao-blackwell $(small 0.01)
row default 2 "**the same, epsilon 0.003, the default**"
row two-samples 4 "the default with two samples" --samples 2
echo "| | test bound | KL | decoder passes |"
echo "|---|---|---|---|"
printf '%s\n' "${rows[@]}"
