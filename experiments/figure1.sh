#!/usr/bin/env bash
# Figure 1 of the paper, and what belongs beside it: bias and standard deviation of estimators over epsilon and the
# temperature, at parameters that were trained with the exact gradient (MNIST, ten categories) and stand still. Leaves
# experiments/figure1*.jsonl and docs/figure1.svg. Usage: GUMBEL_DATA=DIR experiments/figure1.sh [FOLDER]; minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/figure1} gumbel=${GUMBEL:-target/release/gumbel}
"$gumbel" train --quiet --dataset mnist --latent categorical:10 --estimator exact --kl warmup:20 --epochs 40 --eval-every 10 \
    --resume --out "$out"
paper=direct,direct:two-sided,direct:rao-blackwell,direct:kl,gumbel-softmax
points=straight-through,reinmax,gumbel-rao,decoupled-straight-through,simple,softmax-trick,imle,adaptive-imle
points=$points,perturbed:samples=4,reinforce,rloo,rloo:samples=4,vimco:samples=4,arsm,rebar,relax,direct-rebar
points=$points,local-expectation,marginal,exact
"$gumbel" diagnose "$out" --estimators "$paper,$points" --epsilon 0.01,0.03,0.1,0.3,1,3 --temperature 0.05,0.1,0.3,0.5,1,3 \
    --draws "${DRAWS:-2000}" --title "MNIST, ten categories, parameters of the exact gradient" --out docs/figure1.svg \
    --json > experiments/figure1.jsonl

# The same where the published comparison is made: fifteen binary variables, Fashion-MNIST, trained without bias.
"$gumbel" train --quiet --dataset fashion-mnist --latent binary:15 --estimator rloo --samples 4 --epochs 10 --eval-every 10 --resume \
    --out "$out-binary15"
forms=direct,direct:joint=search,direct:joint=search:first=changes:rounds=1,direct:rao-blackwell,direct:rao-blackwell:joint=search:rounds=0,direct:kl
rivals=gumbel-softmax,straight-through,gumbel-rao,reinmax,imle,local-expectation,arm,disarm,arsm,rloo:samples=4,rebar,relax,direct-rebar,simple
"$gumbel" diagnose "$out-binary15" --estimators "$forms,$rivals,perturbed:samples=4,reinforce" --epsilon 0.01,0.1,0.3,1 \
    --temperature 0.1,0.5,1 --draws 100 --learn 300 --json > experiments/figure1-binary15.jsonl
