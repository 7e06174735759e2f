"""The programs of examples/ run, and find what they look for."""

import importlib.util
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


def test_examples_are_listed():
    """Whoever adds one tests it here."""
    assert {p.stem for p in EXAMPLES.glob("*.py")} == {"maxflow", "sorting", "explain", "vae"}
