#!/usr/bin/env bash
# The family of estimators under one objective and one protocol: the whole bound (KL on) for all.
#   figure3a   Fashion-MNIST, 15 binary variables, 784-300-15-300-784, 300 epochs (Figure 3a of the paper)
#   n200       MNIST, dynamic binarisation, 200 binary variables, one or two hidden layers of 200, batch 50, 100,000 steps
#              (the protocol of the REBAR and DisARM papers, shortened)
# Every run leaves a line in experiments/family.jsonl; runs that have one are skipped, one that was interrupted goes on.
# Usage: GUMBEL_DATA=DIR experiments/family.sh figure3a|n200 [FOLDER]; JOBS runs of one thread each at a time (default
# 2), ONLY=rebar takes the runs that match, SEEDS="0 1 2" gives each so many. Then: experiments/family.py prints the tables.
set -euo pipefail
cd "$(dirname "$0")/.."
export protocol=${1:?figure3a or n200} out=${2:-runs/family}
export results=${RESULTS:-experiments/family.jsonl} gumbel=${GUMBEL:-target/release/gumbel}
mkdir -p "$out"
touch "$results"
case $protocol in
    figure3a) common="--dataset fashion-mnist --latent binary:15 --epochs 300 --eval-every 30" ;;
    n200) common="--dataset mnist --binarization stochastic --latent binary:200 --hidden 200 --batch-size 50 --lr 1e-4 --epochs 100 --eval-every 20" ;;
    n200-deep) common="--dataset mnist --binarization stochastic --latent binary:200 --hidden 200,200 --batch-size 50 --lr 1e-4 --epochs 100 --eval-every 20" ;;
    *) echo "expected figure3a, n200 or n200-deep, found $protocol" >&2; exit 2 ;;
esac
export common

# A line for each run: name, flags.
cells() {
    local temperature="--temperature 0.5 --temperature-min 0.5"
    cat << END
straight-through --estimator straight-through --temperature 1 --temperature-min 1
disarm --estimator disarm
rloo4 --estimator rloo --samples 4
direct --estimator direct
direct-paper --preset paper-direct --kl on
gumbel-softmax --estimator gumbel-softmax $temperature
arm --estimator arm
reinmax --estimator reinmax
gumbel-rao --estimator gumbel-rao $temperature
rebar --estimator rebar
relax --estimator relax
decoupled --estimator decoupled-straight-through
rloo2 --estimator rloo --samples 2
reinforce --estimator reinforce
vimco4 --estimator vimco --samples 4
imle --estimator imle
simple --estimator simple
softmax-trick --estimator softmax-trick $temperature
direct-rebar --estimator direct-rebar
direct-authors --preset paper-direct --kl off
END
    # One pass for every variable: not for 200 of them.
    if [ "$protocol" = figure3a ]; then
        echo "local-expectation --estimator local-expectation"
        echo "perturbed4 --estimator perturbed --samples 4"
    fi
}

run() {
    read -r seed name flags <<< "$1"
    local cell="$protocol-$name-s$seed"
    grep -q "\"cell\": \"$cell\"" "$results" && return
    # shellcheck disable=SC2086
    if ! "$gumbel" train --quiet $common --kl on $flags --seed "$seed" --threads 1 --checkpoint-every 5000 --resume \
        --out "$out/$cell"; then
        echo "failed: $cell" >&2
        return
    fi
    python3 experiments/family.py --line "$out/$cell" "$cell" >> "$results"
    rm -rf "${out:?}/$cell"
}
export -f run
for seed in ${SEEDS:-0}; do
    cells | sed "s/^/$seed /"
done | grep -E -- "${ONLY:-.}" | xargs -d '\n' -P "${JOBS:-2}" -I{} bash -c 'run "$1"' _ {}
