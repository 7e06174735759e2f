#!/usr/bin/env bash
# Figure 5 of the paper: faces with glasses, smiling, male, on and off. Trains on the CelebA subset and asks an independent
# classifier whether it sees what was switched. Usage: GUMBEL_DATA=DIR experiments/figure5.sh [FOLDER]; needs Python with
# torch, numpy, safetensors and pillow (PYTHON chooses one).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/figure5} gumbel=${GUMBEL:-target/release/gumbel} python=${PYTHON:-python3}
mkdir -p "$out"
names=Eyeglasses,Smiling,Male
"$gumbel" train --dataset celeba --model conv --channels 16 --latent binary:3 --continuous joint:64 --continuous-kl-weight 50 \
    --attributes "$names" --labels all --labels-balanced=true --supervision phases:40,0 --part 128 --shared 128 --dropout 0 \
    --supervised-loss cross-entropy --supervised-weight 20 --checkpoint-every 46 --resume --out "$out/faces"
"$gumbel" evaluate "$out/faces"
"$gumbel" attributes "$out/faces" --rows 4 --encoded 4 --out "$out/attributes.png"
"$gumbel" attributes "$out/faces" --rows 200 --encoded 200 --out "$out/attributes.safetensors"
"$python" experiments/classifier.py --dataset celeba --attributes "$names" --model "$out/faces.pt" "$out/attributes.safetensors" |
    tee "$out/agreement.jsonl"
