"""Compares every figure in metrics.jsonl of runs of the same names in two folders, times aside: before-after.py BEFORE AFTER."""

import json
import pathlib
import sys

TIMES = {"seconds", "train_seconds", "step_ms"}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def main(before, after):
    worst = 0.0
    for run in sorted(p.name for p in before.iterdir() if p.is_dir()):
        found = after / run / "metrics.jsonl"
        if not found.exists():
            print(f"{run:36} missing after")
            continue
        difference, where = 0.0, ""
        for old, new in zip(lines(before / run / "metrics.jsonl"), lines(found), strict=True):
            # The limit of an evaluation did not use to limit the training split.
            if old["images"] != new["images"]:
                continue
            for key in old.keys() - TIMES:
                a, b = old[key], new[key]
                if a == b:
                    continue
                relative = abs(a - b) / max(abs(a), abs(b)) if isinstance(a, float) and isinstance(b, float) else 1.0
                if relative > difference:
                    difference, where = relative, f"{key}, {old['split']}, epoch {old['epoch']}: {a}, then {b}"
        worst = max(worst, difference)
        print(f"{run:36} {'the same bits' if difference == 0 else f'{difference:.1e}  {where}'}")
    print(f"largest relative difference {worst:.1e}")


main(*map(pathlib.Path, sys.argv[1:3]))
