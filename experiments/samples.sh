#!/usr/bin/env bash
# What more samples and a learning rate that falls are worth with couplings, Fashion-MNIST, KL off: the samples table of
# docs/ablation.md (pairwise:40, five epochs of the searches), then pairwise:15 with two samples, and over 85 epochs with
# and without `--lr-decay cosine`. A line for each run: its name, test bound, -ln p(x) where it is exact. Needs jq. Usage:
# GUMBEL_DATA=DIR experiments/samples.sh [FOLDER]; about three hours on two cores, ONLY=pairwise40 takes what matches.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/samples}
source experiments/train.sh
run() { # NAME, epochs, flags...
    local name=$1 epochs=$2
    shift 2
    [[ $name =~ ${ONLY:-.} ]] || return 0
    train "$name" --quiet --dataset fashion-mnist --kl off --epochs "$epochs" --eval-every "$epochs" --threads "${THREADS:-2}" \
        --rao-blackwell=false --joint search "$@" > /dev/null
    jq -r --arg name "$name" '"\($name): \(.test.bound) nats, -ln p(x) \(.test.nll // "not known")"' "$out/$name/summary.json"
}
for samples in 1 2; do
    run pairwise40-changes-1-samples-$samples 5 --latent pairwise:40 --first changes --rounds 1 --samples $samples
    run pairwise40-changes-8-samples-$samples 5 --latent pairwise:40 --first changes --rounds 8 --samples $samples
    run pairwise40-slopes-8-samples-$samples 5 --latent pairwise:40 --first slopes --rounds 8 --samples $samples
done
run pairwise40-slopes-8-samples-4 5 --latent pairwise:40 --first slopes --rounds 8 --samples 4
for samples in 1 2; do
    run pairwise15-samples-$samples 10 --latent pairwise:15 --first changes --rounds 8 --epsilon 0.3 --samples $samples
done
for decay in none cosine; do
    run pairwise15-85-$decay 85 --latent pairwise:15 --lr-decay $decay
done
run pairwise15-85-cosine-twice 85 --latent pairwise:15 --lr-decay cosine --lr 0.002
