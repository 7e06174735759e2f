#!/usr/bin/env python3
"""The lines of experiments/labels.jsonl, and the table of accuracies and bounds (Table 2 of the paper).

    experiments/labels.py --line FOLDER NAME     prints the line of a run
    experiments/labels.py                        prints the table in Markdown
"""
import json
import pathlib
import statistics
import sys

PUBLISHED = {  # accuracy in per cent, then the bound: direct, GSM
    ("mnist", 50): (92.6, 84.7), ("mnist", 100): (95.4, 88.4), ("mnist", 300): (96.4, 91.7),
    ("mnist", 600): (96.7, 92.3), ("mnist", 1200): (96.8, 92.7),
    ("fashion-mnist", 50): (63.3, 61.2), ("fashion-mnist", 100): (67.2, 64.2), ("fashion-mnist", 300): (70.0, 69.3),
    ("fashion-mnist", 600): (72.1, 71.6), ("fashion-mnist", 1200): (73.7, 73.2),
}

if sys.argv[1:2] == ["--line"]:
    folder, name = pathlib.Path(sys.argv[2]), sys.argv[3]
    summary = json.loads((folder / "summary.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = [[line["epoch"], round(100 * line["accuracy"], 2), round(line["bound"], 3)]
             for line in lines if line["split"] == "test"]
    last, valid = summary["final_test"], [line for line in lines if line["split"] == "valid"][-1]
    print(json.dumps({
        "cell": name, "accuracy": round(100 * last["accuracy"], 2), "bound": round(last["bound"], 3),
        "valid_accuracy": round(100 * valid["accuracy"], 2), "valid_bound": round(valid["bound"], 3),
        "epochs": summary["epochs"], "step_ms": round(lines[-1]["step_ms"], 2), "arithmetic": summary["arithmetic"],
        "commit": summary["commit"], "curve": curve,
    }))
    sys.exit()

cells = {}
for line in map(json.loads, pathlib.Path(__file__).with_suffix(".jsonl").read_text().splitlines()):
    data, count, preset, draw, epochs = line["cell"].replace("fashion-mnist", "fashion_mnist").replace("paper-", "").split("-")
    cells.setdefault((data.replace("_", "-"), int(count), int(epochs[1:])), {}).setdefault(preset, []).append(line)


def show(lines, key):
    values = [line[key] for line in lines]
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else ""
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) / len(values) ** 0.5:.2f}"


print("| data set | labels | epochs | draws | direct, accuracy % | the paper | GSM, accuracy % | the paper | direct, bound | GSM, bound |")
print("|---|---|---|---|---|---|---|---|---|---|")
for (data, count, epochs), of in sorted(cells.items()):
    direct, gsm = of.get("direct", []), of.get("gsm", [])
    paper = PUBLISHED[data, count]
    print(f"| {data} | {count} | {epochs} | {max(len(direct), len(gsm))} | {show(direct, 'accuracy')} | {paper[0]} | "
          f"{show(gsm, 'accuracy')} | {paper[1]} | {show(direct, 'bound')} | {show(gsm, 'bound')} |")
