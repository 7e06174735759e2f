#!/usr/bin/env python3
"""The lines of experiments/family.jsonl, and their tables.

    experiments/family.py --line FOLDER NAME     prints the line of a run
    experiments/family.py                        prints the tables in Markdown
"""
import json
import pathlib
import statistics
import sys

if sys.argv[1:2] == ["--line"]:
    folder, name = pathlib.Path(sys.argv[2]), sys.argv[3]
    summary = json.loads((folder / "summary.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rounded = lambda v: None if v is None else round(v, 3)
    curve = [[line["epoch"], round(line["train_seconds"], 1), rounded(line["bound"]), rounded(line["nll"])]
             for line in lines if line["split"] == "test"]
    last = summary["final_test"]
    print(json.dumps({
        "cell": name, "latent": summary["latent"], "estimator": summary["estimator"], "seed": summary["seed"],
        "best": rounded(summary["test"]["bound"]), "best_nll": rounded(summary["test"]["nll"]),
        "valid": rounded(summary["valid"]["bound"]), "bound": rounded(last["bound"]), "nll": rounded(last["nll"]),
        "kl": rounded(last["kl"]), "bound_kind": last["bound_kind"], "epochs": summary["epochs"],
        "steps": summary["steps"], "step_ms": round(statistics.median(
            line["step_ms"] for line in lines if line["split"] == "train"), 3),
        "train_seconds": round(lines[-1]["train_seconds"], 1), "engine": summary["engine"],
        "arithmetic": summary["arithmetic"], "commit": summary["commit"], "curve": curve,
    }))
    sys.exit()

path = pathlib.Path(__file__).with_suffix(".jsonl")
runs = {}
for line in map(json.loads, path.read_text().splitlines()):
    protocol, name = line["cell"].rsplit("-s", 1)[0].split("-", 1)
    if name.startswith("deep-"):
        protocol, name = protocol + "-deep", name[5:]
    runs.setdefault(protocol, {}).setdefault(name, []).append(line)


def show(lines, key):
    values = [line[key] for line in lines if line[key] is not None]
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else ""
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) / len(values) ** 0.5:.2f}"


for protocol, of in runs.items():
    print(f"\n**{protocol}**: test bound at the last epoch, best by validation, -ln p(x) there\n")
    print("| estimator | seeds | bound | best | -ln p(x) | KL | ms per step | minutes of training |")
    print("|---|---|---|---|---|---|---|---|")
    for name, lines in sorted(of.items(), key=lambda item: statistics.mean(line["best"] for line in item[1])):
        minutes = statistics.mean(line["train_seconds"] for line in lines) / 60
        print(f"| {name} | {len(lines)} | {show(lines, 'bound')} | {show(lines, 'best')} | {show(lines, 'best_nll')} | "
              f"{show(lines, 'kl')} | {statistics.median(line['step_ms'] for line in lines):.2f} | {minutes:.1f} |")
