"""The programs of examples/ run, and find what they look for."""

import ast
import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def example(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_minimum_cuts():
    found = subprocess.run([sys.executable, EXAMPLES / "maxflow.py"], capture_output=True, text=True, check=True)
    assert "those of enumeration" in found.stdout


def test_sorting_is_learned():
    pytest.importorskip("torch")
    assert example("sorting").main(steps=120) > 0.8


def test_features_are_found():
    pytest.importorskip("torch")
    share, accuracy = example("explain").main(steps=200)
    assert accuracy > 0.85 and min(share[0], share[1]) > 0.4


def test_the_bound_of_the_auto_encoder_falls(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.delenv("GUMBEL_DATA", raising=False)
    bounds = example("vae").main(steps=120)
    assert sum(bounds[-20:]) / 20 < min(43, bounds[0])


def test_the_bound_with_convolutions_falls(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.delenv("GUMBEL_DATA", raising=False)
    bounds = example("conv").main(steps=100)
    assert sum(bounds[-20:]) / 20 < min(90, bounds[0])


def test_losses_that_know_what_costs_are_for_regret_less():
    pytest.importorskip("torch")
    found = example("decide").main(steps=300)
    assert found["spo"] < found["perturbed"] < found["squared"] < 0.3


NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def test_examples_are_listed():
    """Whoever adds one tests it here."""
    assert set(NAMES) == {"maxflow", "sorting", "explain", "vae", "conv", "decide"}


TOOL = EXAMPLES.parent.parent / "scripts" / "notebooks.py"


@pytest.mark.skipif(not TOOL.exists(), reason="not in a checkout")
def test_notebooks_are_in_step_with_their_scripts():
    found = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_have_all_of_their_script(name):
    """The cells are the definitions of the script, one after the other, and call it: what the tests above have run."""
    cells = json.loads((EXAMPLES / f"{name}.ipynb").read_text())["cells"]
    assert cells[0]["cell_type"] == "markdown" and all(cell.get("outputs", []) == [] for cell in cells)
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code.pop() == "main()"
    script = ast.parse((EXAMPLES / f"{name}.py").read_text()).body
    assert ast.dump(ast.parse("\n".join(code))) == ast.dump(ast.Module(script[1:-1], []))
