#!/usr/bin/env bash
# The schedule of epsilon in the second phase of the semi-supervised model: MNIST, 100 labels, ten epochs, three label
# draws; sampled as the authors do, and as the conditional expectation. A line for each run is left in
# experiments/labels-epsilon.jsonl; runs that have one are skipped. Usage: GUMBEL_DATA=DIR experiments/labels-epsilon.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
export out=${1:-runs/labels-epsilon}
export results=${RESULTS:-experiments/labels-epsilon.jsonl} gumbel=${GUMBEL:-target/release/gumbel}
mkdir -p "$out"
touch "$results"
cells() {
    for draw in 0 1 2; do
        for way in sampled expectation; do
            for epsilon in step 1 0.1; do echo "$way $epsilon $draw"; done
        done
    done
}
run() {
    read -r way epsilon draw <<< "$1"
    local name="mnist-100-$way-eps_$epsilon-d$draw-e10" args=()
    grep -q "\"cell\": \"$name\"" "$results" && return
    [ "$epsilon" = step ] || args+=(--epsilon "$epsilon" --epsilon-min "$epsilon")
    [ "$way" = sampled ] || args+=(--rao-blackwell=true --kl on --continuous-kl=true)
    if ! "$gumbel" train --quiet --preset paper --dataset mnist --continuous rows:30 --labels 100 --label-draw "$draw" \
        --seed "$draw" --supervision phases:1200,10 --threads 1 --eval-every 1 --eval-limit 5000 "${args[@]}" --resume \
        --checkpoint-every 2500 --out "$out/$name"; then
        echo "failed: $name" >&2
        return
    fi
    python3 experiments/labels.py --line "$out/$name" "$name" >> "$results"
    rm -rf "${out:?}/$name"
}
export -f run
cells | xargs -d '\n' -P "${JOBS:-2}" -I{} bash -c 'run "$1"' _ {}
