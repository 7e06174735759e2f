#!/usr/bin/env bash
# Kills a training run with -9 at random moments, resumes it each time, and checks that it ends with the same bits as a
# run that was never interrupted: the same best.safetensors, the same metrics but for times.
#
#   scripts/kill-resume.sh GUMBEL FOLDER [KILLS]
#
# GUMBEL is the program, FOLDER an empty folder to work in, KILLS the number of kills (default 20). When a run ends
# before all kills are done, it is compared and the next begins. SEED chooses the moments (default 1).
set -euo pipefail
gumbel=$1 folder=$2 kills=${3:-20}
RANDOM=${SEED:-1}
flags=(--dataset glyphs --latent categorical:5 --hidden 32 --epochs 3 --train-limit 1000 --eval-limit 200
    --checkpoint-every 3 --quiet --threads 2)

now() { echo "${EPOCHREALTIME/[.,]/}"; }
stable() { sed -E 's/"train_seconds":[^,}]*,"seconds":[^,}]*,"step_ms":[^,}]*//' "$1/metrics.jsonl"; }
compare() {
    cmp "$folder/whole/best.safetensors" "$1/best.safetensors"
    diff <(stable "$folder/whole") <(stable "$1")
}

began=$(now)
"$gumbel" train "${flags[@]}" --out "$folder/whole" >/dev/null
span=$(($(now) - began))

done_kills=0 round=0
while ((done_kills < kills)); do
    round=$((round + 1))
    run=$folder/killed-$round
    while ((done_kills < kills)); do
        "$gumbel" train "${flags[@]}" --resume --out "$run" >/dev/null &
        pid=$!
        # Anywhere in the time of a whole run: while starting, in a step, in an evaluation, in a checkpoint.
        wait_us=$(((RANDOM * 32768 + RANDOM) % span))
        sleep "$((wait_us / 1000000)).$(printf %06d $((wait_us % 1000000)))"
        if kill -9 "$pid" 2>/dev/null && ! wait "$pid" 2>/dev/null; then
            done_kills=$((done_kills + 1))
        fi
        [ ! -e "$run/summary.json" ] || break
    done
    "$gumbel" train "${flags[@]}" --resume --out "$run" >/dev/null
    compare "$run"
done
echo "$done_kills kills in $round runs: the same bits"
