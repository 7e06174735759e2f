#!/usr/bin/env bash
# Table 2 of the paper: labels x data set x estimator x label draw, the authors' schedule with 60 epochs of the second
# phase, and all 400 where said. Every run leaves a line in experiments/labels.jsonl; runs that have one are skipped, and
# one that was interrupted goes on. Usage: GUMBEL_DATA=DIR experiments/labels.sh [FOLDER]; JOBS runs of one thread each
# at a time (default 2). Then: experiments/labels.py prints the table.
set -euo pipefail
cd "$(dirname "$0")/.."
export out=${1:-runs/labels}
export results=${RESULTS:-experiments/labels.jsonl} gumbel=${GUMBEL:-target/release/gumbel}
mkdir -p "$out"
touch "$results"

# A line for each run: data set, labels, preset, label draw, epochs of the second phase.
cells() {
    local data count preset
    # The first draw of all cells comes first.
    for draw in 0 1 2; do
        for count in 100 1200 50 300 600; do
            for data in mnist fashion-mnist; do
                for preset in paper-direct paper-gsm; do
                    echo "$data $count $preset $draw 60"
                done
            done
        done
    done
    for count in 100 1200; do
        for data in mnist fashion-mnist; do
            for preset in paper-direct paper-gsm; do
                echo "$data $count $preset 0 400"
            done
        done
    done
}

run() {
    read -r data count preset draw epochs <<< "$1"
    local name="$data-$count-$preset-d$draw-e$epochs"
    grep -q "\"cell\": \"$name\"" "$results" && return
    if ! "$gumbel" train --quiet --preset "$preset" --dataset "$data" --continuous rows:30 --labels "$count" \
        --label-draw "$draw" --seed "$draw" --supervision "phases:1200,$epochs" --epochs "$epochs" --threads 1 \
        --eval-every 10 --checkpoint-every 2500 --resume --out "$out/$name"; then
        echo "failed: $name" >&2
        return
    fi
    python3 experiments/labels.py --line "$out/$name" "$name" >> "$results"
    rm -rf "${out:?}/$name"
}
export -f run
cells | xargs -d '\n' -P "${JOBS:-2}" -I{} bash -c 'run "$1"' _ {}
