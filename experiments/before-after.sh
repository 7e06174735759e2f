#!/usr/bin/env bash
# Trains small runs of every estimator and latent with two builds of the program and compares all their figures: what a
# change of the inside must leave as it was. Usage: GUMBEL_DATA=DIR experiments/before-after.sh BEFORE AFTER [FOLDER], two programs;
# the default folder is runs/before-after. About ten minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
before=${1:?the program before}
after=${2:?the program after}
out=${3:-runs/before-after}

all() { # program, folder
    local program=$1 folder=$2 seed
    train() { # name, flags...
        local name=$1
        shift
        for seed in 0 1; do
            [ -f "$folder/$name-s$seed/summary.json" ] && continue
            "$program" train --quiet --overwrite --dataset mnist --epochs 2 --train-limit 5000 --eval-limit 2000 \
                --seed $seed --out "$folder/$name-s$seed" "$@"
        done
    }
    for k in 10 50; do
        train k$k-direct --latent categorical:$k
        train k$k-rao-blackwell --latent categorical:$k --rao-blackwell
        train k$k-two-sided --latent categorical:$k --two-sided
        for estimator in exact marginal gumbel-softmax straight-through local-expectation; do
            train k$k-$estimator --latent categorical:$k --estimator $estimator
        done
    done
    train 3x4-direct --latent categorical:3x4
    train 3x4-local-expectation --latent categorical:3x4 --estimator local-expectation
    for latent in binary:15 pairwise:15; do
        for joint in off search; do
            train ${latent/:/}-$joint --latent $latent --joint $joint --kl off
            train ${latent/:/}-$joint-kl --latent $latent --joint $joint
        done
    done
    for latent in supermodular:15 chain:5x3 tree:7x3 subset:10,3 permutation:5 spanning-tree:6 arborescence:5; do
        train ${latent//[:,]/-} --latent $latent --kl off
    done
    train pairwise5-exact --latent pairwise:5 --estimator exact
    train k10-samples --latent categorical:10 --samples 3
    train binary4-samples --latent binary:4 --samples 3
    train binary6-gumbel-softmax-samples --latent binary:6 --estimator gumbel-softmax --samples 2
    train pairwise25-kl --latent pairwise:25
}

all "$before" "$out/before"
all "$after" "$out/after"
python3 experiments/before-after.py "$out/before" "$out/after"
