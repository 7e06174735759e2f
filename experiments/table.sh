#!/usr/bin/env bash
# Prints the summaries of finished runs as a table in Markdown (needs jq): experiments/table.sh RUN...
set -euo pipefail
echo "| data | latent | estimator | KL | seed | epoch | paper_loss | bound | -ln p(x) | at the last epoch | seconds |"
echo "|---|---|---|---|---|---|---|---|---|---|---|"
for run in "$@"; do
    jq -r 'def f: if . == null then "" else (. * 100 | round) as $n | "\($n / 100 | floor).\($n % 100 + 100 | tostring | .[1:])" end;
        "| \(.dataset) | \(.latent) | \(.estimator) | \(.kl) | \(.seed) | \(.best_epoch) of \(.epochs) | \(.test.paper_loss|f) | \(.test.bound|f) | \(.test.nll|f) | \(.final_test.bound|f) | \(.seconds|round) |"' \
        "$run/summary.json"
done
