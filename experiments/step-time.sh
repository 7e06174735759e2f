#!/usr/bin/env bash
# How long the steps of the authors' methods take beside each other, with one thread: direct optimisation and Gumbel-Softmax
# of one variable (MNIST), and fifteen binary variables without couplings, with super-modular and with general ones
# (Fashion-MNIST, after five epochs of training, when couplings have grown). All in turn, three rounds, on a machine that
# does nothing else; leaves experiments/step-time.jsonl, and prints the medians of the tenth percentiles. GUMBEL names the
# program. Usage: GUMBEL_DATA=DIR experiments/step-time.sh; five minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
gumbel=${GUMBEL:-target/release/gumbel} results=${RESULTS:-experiments/step-time.jsonl}
: > "$results"
step() {
    local cell=$1
    shift
    line=$("$gumbel" bench step --threads 1 --json "$@")
    echo "{\"cell\": \"$cell\", ${line#\{}" >> "$results"
}
for _ in 1 2 3; do
    for k in 10 50; do
        for method in direct gsm; do
            step "categorical:$k $method" --dataset mnist --latent "categorical:$k" --preset "paper-$method" --warmup 50 --steps 300
        done
    done
    for latent in binary:15 supermodular:15 pairwise:15; do
        step "$latent direct" --dataset fashion-mnist --latent "$latent" --preset paper-direct --warmup 2500 --steps 300
    done
done
python3 - "$results" <<'EOF'
import json, statistics, sys
cells = {}
for line in map(json.loads, open(sys.argv[1])):
    cells.setdefault(line["cell"], []).append(line["p10"])
for cell, times in cells.items():
    print(f"{cell:24} {statistics.median(times):8.3f} ms")
EOF
