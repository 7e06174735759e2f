#!/usr/bin/env python3
"""The table of experiments/cost.jsonl in Markdown: milliseconds of a training step, medians."""
import json
import pathlib

cells = {}
for line in map(json.loads, pathlib.Path(__file__).with_suffix(".jsonl").read_text().splitlines()):
    engine, latent, estimator = line["cell"].split(" ", 2)
    cells.setdefault(estimator, {})[engine, latent] = line["step_ms"]
columns = sorted({key for row in cells.values() for key in row}, key=lambda k: (k[0] != "fused", k[1] != "categorical:10", len(k[1])))
print("| estimator | " + " | ".join(f"{engine}, {latent}" for engine, latent in columns) + " |")
print("|---|" + "---|" * len(columns))
for estimator, row in cells.items():
    print(f"| {estimator} | " + " | ".join(f"{row[key]:.2f}" if key in row else "" for key in columns) + " |")
