#!/usr/bin/env bash
# What direct optimisation should do for which latent: epsilon x KL x second arg max, one seed, ten epochs. Every cell
# leaves a line in experiments/ablation.jsonl; cells that have one are skipped, so that the script goes on where it
# stopped. Two cells run side by side, each with one thread. Usage: GUMBEL_DATA=DIR experiments/ablation.sh [FOLDER];
# the runs themselves go to a folder, runs/ablation by default; ONLY=categorical takes the cells that match; BEST=1 trains
# the best three of each latent so far and the defaults, three seeds and 30 epochs. Then: experiments/ablation.py prints
# the tables.
set -euo pipefail
cd "$(dirname "$0")/.."
export out=${1:-runs/ablation}
export results=${RESULTS:-experiments/ablation.jsonl} gumbel=${GUMBEL:-target/release/gumbel}
mkdir -p "$out"
touch "$results"

# A line for each cell: data set, latent, epochs, seed, and then the names of epsilon, KL and arg max.
cells() {
    local data=$1 latent=$2 epsilons=$3 kls=$4 argmaxes=$5
    for argmax in $argmaxes; do
        for kl in $kls; do
            for epsilon in $epsilons; do
                echo "$data $latent ${epochs:-10} ${seed:-0} $epsilon $kl $argmax"
            done
        done
    done
}

run() {
    read -r data latent epochs seed epsilon kl argmax <<< "$1"
    local name="$data-${latent/:/}-e$epochs-s$seed-eps_$epsilon-kl_$kl-$argmax"
    grep -q "\"cell\": \"$name\"" "$results" && return
    local args=()
    case $epsilon in
        annealed) args+=(--epsilon 1 --epsilon-min 0.1 --epsilon-decay 0.0005 --epsilon-every 100) ;; # 0.1 at step 4,605
        step) args+=(--epsilon 1 --epsilon-min 0.1 --epsilon-decay 0.01 --epsilon-every 500) ;; # 1 for an epoch, then 0.1
        *) args+=(--epsilon "$epsilon" --epsilon-min "$epsilon") ;;
    esac
    case $argmax in
        off) args+=(--joint off --rao-blackwell=false) ;;
        search) args+=(--joint search --first slopes --rounds 8 --rao-blackwell=false) ;;
        changes) args+=(--joint search --first changes --rounds 8 --rao-blackwell=false) ;;
        one-round) args+=(--joint search --first changes --rounds 1 --rao-blackwell=false) ;;
        rao) args+=(--joint off --rao-blackwell=true) ;; # the conditional expectation, with the loss of every change
        slopes) args+=(--joint search --first slopes --rounds 0 --rao-blackwell=true) ;; # the same from slopes
    esac
    case $kl in
        inside) args+=(--kl on) ;;
        *) args+=(--kl "$kl") ;;
    esac
    local train=("$gumbel" train --quiet --threads 1 --out "$out/$name")
    # One that was interrupted goes on at its checkpoint; what cannot starts over.
    if ! { [ -d "$out/$name/checkpoint" ] && "${train[@]}" --resume; } &&
        ! "${train[@]}" --overwrite --dataset "$data" --latent "$latent" --epochs "$epochs" --seed "$seed" \
            --eval-every "$epochs" "${args[@]}"; then
        echo "failed: $name" >&2
        return
    fi
    python3 experiments/ablation.py --line "$out/$name" "$name" >> "$results"
    rm -rf "${out:?}/$name"
}
export -f run

all() {
    local five="1 0.3 0.1 annealed step"
    # What matters most comes first.
    cells fashion-mnist pairwise:15 "1 0.3 0.1" "off inside" "changes search"
    cells fashion-mnist binary:15 "0.1 0.03 0.01" "off inside" rao
    cells fashion-mnist binary:15 "1 0.3 0.1" "off inside" "changes search"
    for data in fashion-mnist mnist; do
        for latent in categorical:10 categorical:50; do
            cells $data $latent "$five" "off inside added" off
            cells $data $latent "1 0.1 0.01" "off inside" rao
        done
    done
    cells fashion-mnist binary:15 "0.01" inside slopes
    cells fashion-mnist binary:200 "0.01 0.003" inside slopes
    cells fashion-mnist binary:40 "0.01" inside "rao slopes"
    cells fashion-mnist pairwise:40 "1 0.3 0.1" "off inside" search
    cells fashion-mnist pairwise:40 "1 0.3" "off inside" changes
    for latent in binary:15 pairwise:15; do
        cells fashion-mnist $latent "1 0.3 0.1" "off inside" off
        cells fashion-mnist $latent "annealed step" "off inside" "search off"
        cells mnist $latent "$five" "off inside" search
    done
    cells mnist binary:15 "0.1 0.01" "off inside" "rao slopes"
    cells fashion-mnist binary:40 "$five" "off inside" search
    cells fashion-mnist binary:200 "$five" "off inside" search
    cells fashion-mnist pairwise:40 "annealed step" "off inside" search
    for latent in binary:15 pairwise:15; do
        cells fashion-mnist $latent "$five" added "search off"
        cells mnist $latent "$five" "off inside added" off
        cells mnist $latent "$five" added search
    done
    cells fashion-mnist binary:40 "$five" "off inside added" off
    cells fashion-mnist binary:40 "$five" added search
    # The KL of forty coupled variables has no gradient that could be added.
    cells fashion-mnist pairwise:40 "$five" "off inside" off
    cells fashion-mnist binary:200 "0.01" inside rao
    # The expectation with couplings, which came later, and without where the KL is off.
    for data in fashion-mnist mnist; do
        cells $data pairwise:15 "0.3 0.1 0.03" inside rao
        cells $data pairwise:15 "1 0.3 0.1" off rao
    done
    cells fashion-mnist binary:15 "1 0.3" off rao
    cells mnist binary:15 "1 0.3" off rao
    cells fashion-mnist binary:40 "0.3 0.1 0.01" off rao
    cells fashion-mnist binary:40 "0.01" added rao
    cells fashion-mnist binary:200 "0.1 0.003" off slopes
    cells fashion-mnist binary:200 "0.003" added slopes
    cells fashion-mnist pairwise:40 "0.1 0.03 0.01" inside rao
    cells fashion-mnist pairwise:40 "0.3 0.1" off rao
    cells fashion-mnist binary:200 "$five" "off inside added" off
    cells fashion-mnist binary:200 "$five" added search
}
if [ -n "${BEST:-}" ]; then cells_to_run() { python3 experiments/ablation.py --best; }; else cells_to_run() { all; }; fi
cells_to_run | grep -E -- "${ONLY:-.}" | xargs -P "${JOBS:-2}" -d '\n' -I{} bash -c 'run "{}"'
