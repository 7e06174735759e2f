#!/usr/bin/env bash
# Figure 1 of the paper (`gumbel reproduce figure1`: bias and standard deviation of estimators over epsilon and the temperature, MNIST, ten
# categories, parameters of the exact gradient that stand still), and the same of fifteen binary variables. Leaves
# experiments/figure1/results, docs/figure1.svg and experiments/figure1-binary15.jsonl. Usage:
# GUMBEL_DATA=DIR experiments/figure1.sh [FOLDER]; half an hour.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/figure1} gumbel=${GUMBEL:-target/release/gumbel}
"$gumbel" reproduce figure1 --out "$out" --quiet
mkdir -p experiments/figure1/results
cp "$out"/figure1/results/{exact-s0.json,diagnose.jsonl} experiments/figure1/results/
cp "$out/figure1/results/figure1.svg" docs/

# The same where the published comparison is made: fifteen binary variables, Fashion-MNIST, trained without bias.
"$gumbel" train --quiet --dataset fashion-mnist --latent binary:15 --estimator rloo --samples 4 --epochs 10 --eval-every 10 --resume \
    --out "$out-binary15"
forms=direct,direct:joint=search,direct:joint=search:first=changes:rounds=1,direct:rao-blackwell,direct:rao-blackwell:joint=search:rounds=0,direct:kl
rivals=gumbel-softmax,straight-through,gumbel-rao,reinmax,imle,local-expectation,arm,disarm,arsm,rloo:samples=4,rebar,relax,direct-rebar,simple
"$gumbel" diagnose "$out-binary15" --estimators "$forms,$rivals,perturbed:samples=4,reinforce" --epsilon 0.01,0.1,0.3,1 \
    --temperature 0.1,0.5,1 --draws 100 --learn 300 --json > experiments/figure1-binary15.jsonl
