#!/usr/bin/env python3
"""Writes a notebook beside each script of python/examples: its text, its definitions as cells, no outputs.

    scripts/notebooks.py            # writes them
    scripts/notebooks.py --check    # fails, with the names, where one is not what its script makes
"""

import ast
import json
import pathlib
import sys

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "python" / "examples"
# Lines of a shell in a text: a notebook is run otherwise.
SHELL = "    python "


def cells(source):
    """The cells of a script: (kind, text)."""
    module = ast.parse(source)
    text = ast.get_docstring(module) or ""
    title, _, rest = text.partition("\n")
    rest = "\n".join(line for line in rest.splitlines() if not line.startswith(SHELL)).strip()
    yield "markdown", f"**{title}**" + (f"\n\n{rest}" if rest else "")
    lines, done, kept = source.splitlines(), module.body[0].end_lineno, []
    for node in module.body[1:]:
        if isinstance(node, ast.If): # the call of a script, with the arguments of a shell
            break
        kept.extend(lines[done : node.end_lineno])
        done = node.end_lineno
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield "code", "\n".join(kept).strip("\n")
            kept = []
        elif isinstance(next_of(module.body, node), (ast.FunctionDef, ast.ClassDef)):
            yield "code", "\n".join(kept).strip("\n")
            kept = []
    yield "code", "main()"


def next_of(body, node):
    at = body.index(node) + 1
    return body[at] if at < len(body) else None


def notebook(source):
    """The notebook of a script, as the text of its file."""
    made = []
    for number, (kind, text) in enumerate(cells(source)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        print("usage: scripts/notebooks.py [--check]", file=sys.stderr)
        return 2
    scripts = sorted(EXAMPLES.glob("*.py"))
    expected = {script.with_suffix(".ipynb"): notebook(script.read_text()) for script in scripts}
    if sys.argv[1:]:
        found = {path: path.read_text() for path in EXAMPLES.glob("*.ipynb")}
        wrong = sorted(p.name for p in expected.keys() | found.keys() if expected.get(p) != found.get(p))
        if wrong:
            print(f"not what scripts/notebooks.py makes of the scripts: {', '.join(wrong)}", file=sys.stderr)
        return int(bool(wrong))
    for path, text in expected.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
