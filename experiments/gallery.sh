#!/usr/bin/env bash
# The pictures of docs/gallery.md: short trainings, and what their models draw. Usage: GUMBEL_DATA=DIR experiments/gallery.sh
# [FOLDER]. GUMBEL chooses the program; runs that are there are not trained again. Pictures go to docs/gallery/.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gallery} gumbel=${GUMBEL:-target/release/gumbel} pictures=docs/gallery
mkdir -p "$out" "$pictures"
train() { # NAME SETTINGS...
    local name=$1
    shift
    "$gumbel" train --quiet --threads "${THREADS:-1}" --eval-every 10 --eval-limit 2000 --resume --out "$out/$name" "$@"
}
train categories --dataset mnist --latent categorical:50 --epochs 20
train clothes --dataset fashion-mnist --latent pairwise:15 --epochs 10
train many --dataset fashion-mnist --latent binary:100 --epochs 4
train chain --dataset mnist --latent chain:8x4 --epochs 10
train trees --dataset glyphs --latent spanning-tree:5 --epochs 4
train mixed --dataset mnist --continuous rows:10 --latent categorical:10 --preset paper --epochs 2

"$gumbel" sample "$out/categories" --out "$pictures/categories.png"
"$gumbel" reconstruct "$out/clothes" --out "$pictures/clothes.png"
"$gumbel" inspect "$out/clothes" --out "$pictures/couplings.png"
"$gumbel" reconstruct "$out/many" --out "$pictures/many.png"
"$gumbel" sample "$out/chain" --out "$pictures/chain.png"
"$gumbel" sample "$out/trees" --out "$pictures/trees.png"
"$gumbel" traverse "$out/mixed" --image 7 --out "$pictures/traverse.png"
