#!/usr/bin/env bash
# The gradient suite of the autodiff engine, and training steps of perceptrons and convolutions, on a graphics device:
# against the plain path there, and beside the CPU backend. Without a graphics card it installs a Vulkan driver for CPUs
# (Mesa's lavapipe; Debian or Ubuntu, as root). Not part of the gate: the backend takes long to build.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json >/dev/null 2>&1; then
    apt-get update -qq
    apt-get install -y -qq mesa-vulkan-drivers libvulkan1
fi
export GUMBEL_TEST_DEVICE=wgpu XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
# The same packages and features for both commands: the backend is built once.
what=(--release -p gumbel-vae -p gumbel-cli --features gumbel-vae/wgpu,gumbel-cli/wgpu)
cargo test "${what[@]}" --test gradients --test mixed -- --test-threads 1
cargo build "${what[@]}"
gumbel=${CARGO_TARGET_DIR:-target}/release/gumbel
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
small=(--train-limit 400 --eval-limit 100 --epochs 1 --quiet)
for model in "--engine autodiff" "--model conv --channels 8" "--model conv --channels 8 --continuous joint:4"; do
    for device in cpu wgpu; do
        # shellcheck disable=SC2086
        "$gumbel" train $model "${small[@]}" --latent binary:8 --device "$device" --out "$folder/$device" --overwrite
        "$gumbel" evaluate "$folder/$device" --json > "$folder/$device.json"
    done
    echo "$model: test bound on cpu and wgpu"
    sed -E 's/.*"bound":([0-9.]+).*/\1/' "$folder/cpu.json" "$folder/wgpu.json" | tee "$folder/bounds"
    awk 'NR == 1 { a = $1 } NR == 2 { d = (a - $1) / a; exit !(d < 0.02 && d > -0.02) }' "$folder/bounds" ||
        { echo "more than 2 % apart" >&2; exit 1; }
done
