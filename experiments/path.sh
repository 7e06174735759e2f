#!/usr/bin/env bash
# From the reverse to the forward divergence: fifty categories, MNIST, with the exact gradient of the bound, direct
# optimisation with the KL inside at several epsilon (its expectation, which needs no more passes), and the step of
# `marginal`. Draws docs/path.svg. Usage: GUMBEL_DATA=DIR experiments/path.sh [FOLDER]; about five minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/path}
source experiments/train.sh
common="--dataset mnist --latent categorical:50 --epochs 30 --kl on --threads 1"
train exact $common --estimator exact &
train marginal $common --estimator marginal &
wait
for epsilon in 0.001 0.01 0.1 1; do
    train epsilon-$epsilon $common --rao-blackwell --joint off --epsilon $epsilon --epsilon-min $epsilon &
    if [ $epsilon != 0.001 ] && [ $epsilon != 0.1 ]; then wait; fi
done
wait
runs=("$out"/exact "$out"/epsilon-{0.001,0.01,0.1,1} "$out"/marginal)
"$gumbel" curves "${runs[@]}" --labels=exact,"epsilon 0.001","epsilon 0.01","epsilon 0.1","epsilon 1",marginal \
    --title "MNIST, categorical:50, test bound" --out docs/path.svg
experiments/table.sh "${runs[@]}"
