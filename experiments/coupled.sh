#!/usr/bin/env bash
# The expectation of a step beside the search, for coupled variables of other structures: Fashion-MNIST, ten epochs, one
# seed; a line for each run. Usage: GUMBEL_DATA=DIR experiments/coupled.sh [FOLDER]; goes on where it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/coupled}
run() {
    local latent=$1 name=${1//:/}-$2
    shift 2
    [ -f "$out/$name/summary.json" ] || "${GUMBEL:-target/release/gumbel}" train --quiet --dataset fashion-mnist \
        --latent "$latent" --epochs 10 --eval-every 10 --threads 1 --overwrite --out "$out/$name" "$@" | head -1
}
for latent in supermodular:15 chain:8x4 tree:8x4; do
    run $latent kl-on-expectation
    run $latent kl-on-search --joint search
    run $latent kl-off-expectation --kl off
    run $latent kl-off-search --kl off --joint search
done
