#!/usr/bin/env bash
# What a training step of every estimator costs: milliseconds with one thread, both engines, on MNIST with ten
# categories, 15 and 200 binary variables (784-300-...-300-784, 100 images). Leaves experiments/cost.jsonl, a line for
# each; experiments/cost.py prints the table. Usage: GUMBEL_DATA=DIR experiments/cost.sh; ENGINES="fused autodiff" (default those
# that the program has); GUMBEL names the program. A quarter of an hour for the fused engine on a quiet machine.
set -euo pipefail
cd "$(dirname "$0")/.."
gumbel=${GUMBEL:-target/release/gumbel} results=${RESULTS:-experiments/cost.jsonl}
touch "$results"
engines=fused
# A program without Burn refuses the other engine.
if "$gumbel" bench step --engine autodiff --threads 1 --warmup 0 --steps 1 > /dev/null 2>&1; then
    engines="fused autodiff"
fi
for engine in ${ENGINES:-$engines}; do
    for latent in categorical:10 binary:15 binary:200; do
        for estimator in $("$gumbel" list estimators --json | python3 -c 'import json,sys
for line in sys.stdin: print(json.loads(line)["name"])'); do
            samples=1
            case $estimator in rloo | vimco | perturbed) samples=2 ;; esac
            forms=("")
            if [ "$estimator" = direct ]; then forms=("" "--joint off --rao-blackwell=false"); fi
            for form in "${forms[@]}"; do
                name="$engine $latent $estimator${form:+ (separable)}"
                if grep -q "\"cell\": \"$name\"" "$results"; then continue; fi
                # shellcheck disable=SC2086
                said=$(mktemp)
                if line=$("$gumbel" bench step --dataset mnist --latent "$latent" --estimator "$estimator" --samples $samples --kl off \
                    $form --engine "$engine" --threads 1 --warmup 10 --steps "${STEPS:-60}" --json 2> "$said"); then
                    echo "{\"cell\": \"$name\", ${line#\{}" >> "$results"
                else
                    # What cannot be: the reason stands in its place.
                    python3 -c 'import json,sys
print(json.dumps({"cell": sys.argv[1], "refused": open(sys.argv[2]).read().strip().removeprefix("gumbel: ")}))' "$name" "$said" >> "$results"
                fi
                rm "$said"
            done
        done
    done
done
