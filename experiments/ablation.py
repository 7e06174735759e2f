#!/usr/bin/env python3
"""The lines of experiments/ablation.jsonl, and their table.

    experiments/ablation.py --line FOLDER NAME     prints the line of a run
    experiments/ablation.py                        prints the table in Markdown
"""
import json
import pathlib
import sys

if sys.argv[1:2] == ["--line"]:
    folder, name = pathlib.Path(sys.argv[2]), sys.argv[3]
    summary = json.loads((folder / "summary.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"][-1]
    keep = {
        "cell": name, "dataset": summary["dataset"], "latent": summary["latent"], "epochs": summary["epochs"],
        "seed": summary["seed"], "valid": summary["valid"]["bound"], "test": summary["test"]["bound"],
        "kl": summary["test"]["kl"], "nll": summary["test"]["nll"], "bound_kind": summary["test"]["bound_kind"],
        "step_ms": train["step_ms"], "rows": train.get("search_rows"), "zero": train.get("zero_gradient_rate"),
        "arithmetic": summary["arithmetic"], "commit": summary["commit"],
    }
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in keep.items()}))
    sys.exit()

path = pathlib.Path(__file__).with_suffix(".jsonl")
cells = [json.loads(line) for line in path.read_text().splitlines()]
for line in cells:
    line["epsilon"], rest = line["cell"].split("-eps_")[1].split("-kl_")
    line["kl_how"], line["argmax"] = rest.split("-", 1)
groups = {}
for line in cells:
    groups.setdefault((line["dataset"], line["latent"], line["epochs"]), []).append(line)
epsilons = ["1", "annealed", "step", "0.3", "0.1", "0.03", "0.01", "0.003"]
for (dataset, latent, epochs), lines in groups.items():
    print(f"\n**{dataset}, {latent}**, {epochs} epochs: test bound (step in ms)\n")
    used = [e for e in epsilons if any(line["epsilon"] == e for line in lines)]
    print("| arg max | KL | " + " | ".join(f"epsilon {e}" for e in used) + " |")
    print("|---|---|" + "---|" * len(used))
    best = min(line["valid"] for line in lines)
    for argmax in ["off", "search", "changes", "rao", "slopes"]:
        for kl in ["off", "inside", "added"]:
            row = {line["epsilon"]: line for line in lines if line["argmax"] == argmax and line["kl_how"] == kl}
            if row:
                show = lambda line: "" if line is None else (
                    ("**{:.2f}**" if line["valid"] == best else "{:.2f}").format(line["test"]) + f" ({line['step_ms']:.1f})")
                print(f"| {argmax} | {kl} | " + " | ".join(show(row.get(e)) for e in used) + " |")
