#!/usr/bin/env bash
# Trains the models of the tables in docs/results.md, one after the other. Runs that were killed go on where they stopped,
# finished ones are kept. Usage: GUMBEL_DATA=DIR experiments/categorical.sh [FOLDER]; the default folder is runs/categorical.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/categorical}
source experiments/train.sh

# The authors' code at 25 epochs.
for seed in 0 1 2; do
    k10="--dataset mnist --latent categorical:10 --epochs 25 --seed $seed"
    train mnist-k10-direct-s$seed $k10 --preset paper-direct
    train mnist-k10-exact-s$seed $k10 --estimator exact --kl on
    train mnist-k10-straight-through-s$seed $k10 --estimator straight-through --kl on --eval-samples 100
done
# Finite epsilon against the exact gradient, at K = 50.
for dataset in mnist fashion-mnist; do
    k50="--dataset $dataset --latent categorical:50 --epochs 60"
    train $dataset-k50-direct $k50 --preset paper-direct
    train $dataset-k50-marginal $k50 --estimator marginal
    train $dataset-k50-exact-warmup $k50 --estimator exact --kl warmup:20
done
# The exact gradient at K = 50 depends on luck: three seeds.
for seed in 0 1 2; do
    train mnist-k50-exact-off-s$seed --dataset mnist --latent categorical:50 --epochs 60 --seed $seed --estimator exact --kl off
done
for seed in 1 2; do
    train mnist-k50-exact-warmup-s$seed --dataset mnist --latent categorical:50 --epochs 60 --seed $seed --estimator exact --kl warmup:20
done
