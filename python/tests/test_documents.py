"""The examples of all docstrings and pages."""

import doctest
import importlib
import importlib.util
import pathlib
import re

import numpy as np
import pytest

import gumbel_argmax

MODULES = ["gumbel_argmax"] + [f"gumbel_argmax.{name}" for name in ("_structures", "_estimators", "_custom", "testing")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name):
    module = importlib.import_module(name)
    names = {key: getattr(gumbel_argmax, key) for key in gumbel_argmax.__all__}
    with np.errstate(all="raise"):
        found = doctest.testmod(module, extraglobs={"np": np, **names})
    assert found.failed == 0 and found.attempted > 0


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_examples_of_the_layers_run(name):
    its = pytest.importorskip(name)
    module = importlib.import_module(f"gumbel_argmax.{name}")
    names = {key: getattr(gumbel_argmax, key) for key in gumbel_argmax.__all__}
    flags = doctest.ELLIPSIS
    found = doctest.testmod(module, extraglobs={"np": np, name: its, **names}, optionflags=flags)
    assert found.failed == 0 and found.attempted > 0


def test_everything_public_has_a_docstring():
    for name in gumbel_argmax.__all__:
        item = getattr(gumbel_argmax, name)
        assert item.__doc__, name
        if isinstance(item, type):
            for method, value in vars(item).items():
                if not method.startswith("_") and callable(value):
                    assert value.__doc__, f"{name}.{method}"


ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.mark.parametrize("page", ["python/README.md", "docs/python.md"])
def test_code_of_pages_runs(page):
    """One block after the other, those of a library that is missing left out."""
    if not (ROOT / page).exists():
        pytest.skip("not in a checkout")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    names, ran = {}, 0
    for block in blocks:
        if all(importlib.util.find_spec(it) for it in ("torch", "jax") if re.search(rf"\b{it}\b", block)):
            exec(compile(block, page, "exec"), names) # noqa: S102
            ran += 1
    assert ran > 0
