#!/usr/bin/env bash
# How near the second arg max comes to that of the true loss: the separable approximation, the search by slopes and the
# exact flips beside enumeration, for models of ten variables after ten epochs of Fashion-MNIST; 200 test images, one draw
# each. Prints the table of docs/direct.md (needs jq). Usage: GUMBEL_DATA=DIR experiments/search.sh [FOLDER]; about three
# minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/search}
source experiments/train.sh
for latent in binary:10 pairwise:10; do
    train ${latent/:/} --dataset fashion-mnist --latent $latent --joint search --rao-blackwell=false --epsilon 1 --kl on \
        --epochs 10 --eval-every 10 --threads 1 &
done
wait
echo "| model | epsilon | separable: found, nats lost | search by slopes | search from changes | flips |"
echo "|---|---|---|---|---|---|"
for latent in binary10 pairwise10; do
    for epsilon in 1 0.3 0.1; do
        "$gumbel" inspect "$out/$latent" --epsilon $epsilon --limit 200 --json |
            jq -r --arg latent $latent --arg epsilon $epsilon \
                '[.arg_maxima[] | "\(.found * 1000 | round / 10) %, \(.gap * 1000 | round / 1000)"] | join(" | ") | "| \($latent) | \($epsilon) | \(.) |"'
    done
done
