#!/usr/bin/env bash
# Whether an epsilon that is held by its share of zero gradients does what a chosen one does, and for which learning rate:
# epsilon x learning rate, one seed, ten epochs. Every cell leaves a line in experiments/epsilon-lr.jsonl; cells that have
# one are skipped, so that the script goes on where it stopped. Two cells run side by side, each with one thread. Usage:
# GUMBEL_DATA=DIR experiments/epsilon-lr.sh [FOLDER]; the runs themselves go to a folder, runs/epsilon-lr by default;
# ONLY=categorical takes the cells that match, MORE="--train-limit 1000" gives more settings to all (with RESULTS=FILE:
# a cell's name does not say them). In a line, `epsilon` is that of the cell, `held` the mean of the last epoch where a
# share is held.
set -euo pipefail
cd "$(dirname "$0")/.."
export out=${1:-runs/epsilon-lr}
export results=${RESULTS:-experiments/epsilon-lr.jsonl} gumbel=${GUMBEL:-target/release/gumbel} more=${MORE:-}
mkdir -p "$out"
touch "$results"

run() {
    read -r latent epsilon lr <<< "$1"
    local epochs=${EPOCHS:-10} name
    name="fashion-mnist-${latent/:/}-e$epochs-s0-eps_$epsilon-lr_$lr"
    grep -q "\"cell\": \"$name\"" "$results" && return
    local args=()
    case $epsilon in
        # From 1, wherever that leads.
        held*) args+=(--epsilon 1 --zero-gradient-target "${epsilon#held}") ;;
        *) args+=(--epsilon "$epsilon" --epsilon-min "$epsilon") ;;
    esac
    # What is held is a share of draws: the sampled form of each latent, not the expectation that auto would choose.
    case $latent in
        categorical:*) args+=(--joint off --rao-blackwell=false) ;;
        *) args+=(--joint search --first changes --rounds 1 --rao-blackwell=false) ;;
    esac
    # shellcheck disable=SC2086
    if ! "$gumbel" train --quiet --dataset fashion-mnist --latent "$latent" --epochs "$epochs" --seed 0 --threads 1 \
        --eval-every "$epochs" --lr "$lr" "${args[@]}" $more --out "$out/$name"; then
        echo "failed: $name" >&2
        return
    fi
    python3 - "$out/$name" "$name" "$epsilon" "$lr" >> "$results" << 'PYTHON'
import json, pathlib, sys

folder, name, epsilon, lr = pathlib.Path(sys.argv[1]), *sys.argv[2:]
summary = json.loads((folder / "summary.json").read_text())
lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
train = [line for line in lines if line["split"] == "train"][-1]
keep = {
    "cell": name, "dataset": summary["dataset"], "latent": summary["latent"], "epochs": summary["epochs"],
    "seed": summary["seed"], "epsilon": epsilon, "lr": float(lr), "held": train.get("adaptive_epsilon"),
    "zero": train.get("zero_gradient_rate"), "valid": summary["valid"]["bound"], "test": summary["test"]["bound"],
    "kl": summary["test"]["kl"], "nll": summary["test"]["nll"], "bound_kind": summary["test"]["bound_kind"],
    "step_ms": train["step_ms"], "arithmetic": summary["arithmetic"], "commit": summary["commit"],
}
print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in keep.items()}))
PYTHON
    rm -rf "${out:?}/$name"
}
export -f run

all() {
    for latent in categorical:10 binary:15; do
        for epsilon in 0.03 0.1 0.3 1 held0.5 held0.8; do
            for lr in 3e-4 1e-3 3e-3; do
                echo "$latent $epsilon $lr"
            done
        done
    done
}
all | grep -E -- "${ONLY:-.}" | xargs -P "${JOBS:-2}" -d '\n' -I{} bash -c 'run "{}"'
