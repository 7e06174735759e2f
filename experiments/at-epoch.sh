#!/usr/bin/env bash
# Prints the test figures of runs at one epoch, finished or not, as a table in Markdown (needs jq): experiments/at-epoch.sh EPOCH RUN...
set -euo pipefail
epoch=$1
shift
echo "| run | epoch | paper_loss | bound | -ln p(x) | seconds of training steps |"
echo "|---|---|---|---|---|---|"
for run in "$@"; do
    jq -r --argjson epoch "$epoch" --arg run "$(basename "$run")" 'def f: if . == null then "" else (. * 100 | round) as $n | "\($n / 100 | floor).\($n % 100 + 100 | tostring | .[1:])" end;
        select(.split == "test" and .epoch == $epoch) |
        "| \($run) | \(.epoch) | \(.paper_loss|f) | \(.bound|f) | \(.nll|f) | \(.train_seconds|round) |"' \
        "$run/metrics.jsonl"
done
