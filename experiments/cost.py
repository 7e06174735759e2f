#!/usr/bin/env python3
"""The table of experiments/cost.jsonl in Markdown: decoder passes for each image and sample as the registry has them,
and milliseconds of a training step, medians. GUMBEL names the program (default target/release/gumbel), RESULTS the file."""
import json
import os
import pathlib
import subprocess

program = os.environ.get("GUMBEL", "target/release/gumbel")
listed = subprocess.run([program, "list", "estimators", "--json"], check=True, capture_output=True, text=True).stdout
registry = {entry["name"]: entry for entry in map(json.loads, listed.splitlines())}
PASSES = ["passes_without_gradient", "passes_with_gradient"]

results = pathlib.Path(os.environ.get("RESULTS", pathlib.Path(__file__).with_suffix(".jsonl")))
cells, reasons = {}, {}
for line in map(json.loads, results.read_text().splitlines()):
    engine, latent, estimator = line["cell"].split(" ", 2)
    # What cannot be has a letter, and its reason stands below.
    refused = line.get("refused")
    letter = reasons.setdefault(refused.split(", found")[0], chr(ord("a") + len(reasons))) if refused else None
    cells.setdefault(estimator, {})[engine, latent] = f"({letter})" if refused else f"{line['step_ms']:.2f}"
columns = sorted(
    {key for row in cells.values() for key in row},
    key=lambda k: (k[0] != "fused", k[1] != "categorical:10", len(k[1]), k),
)
titles = [name.replace("_", " ") for name in PASSES] + [f"{engine}, {latent}, ms" for engine, latent in columns]
print("| estimator | " + " | ".join(titles) + " |")
print("|---|" + "---|" * len(PASSES) + "---:|" * len(columns))
for estimator, row in cells.items():
    # A form of an estimator stands behind its name.
    passes = [registry.get(estimator.split(" ", 1)[0], {}).get(name, "") for name in PASSES]
    times = [row.get(key, "") for key in columns]
    print(f"| {estimator} | " + " | ".join(passes + times) + " |")
for reason, letter in reasons.items():
    print(f"\n({letter}) {reason}")
