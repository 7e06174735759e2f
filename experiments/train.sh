# For the scripts beside it, which say `source`: builds the program, makes the folder `$out`, and trains runs in it. Runs that
# were killed go on where they stopped, finished ones are kept.
# GUMBEL may name a program that is there already.
if [ -z "${GUMBEL:-}" ]; then cargo build --release --quiet; fi
gumbel=${GUMBEL:-${CARGO_TARGET_DIR:-target}/release/gumbel}
mkdir -p "$out"

train() { # name, flags...
    local run=$out/$1
    shift
    if [ -f "$run/summary.json" ]; then return; fi
    if [ -f "$run/checkpoint/latest.safetensors" ]; then
        "$gumbel" train --resume --out "$run"
    else
        "$gumbel" train --overwrite --eval-every 1 --out "$run" "$@"
    fi
}
