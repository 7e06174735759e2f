"""The examples of all docstrings, and of README.md as far as NumPy goes."""

import doctest
import importlib

import numpy as np
import pytest

import gumbel_argmax

MODULES = ["gumbel_argmax", "gumbel_argmax._structures", "gumbel_argmax._estimators"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name):
    module = importlib.import_module(name)
    names = {key: getattr(gumbel_argmax, key) for key in gumbel_argmax.__all__}
    with np.errstate(all="raise"):
        found = doctest.testmod(module, extraglobs={"np": np, **names})
    assert found.failed == 0 and found.attempted > 0


def test_examples_of_the_torch_layer_run():
    torch = pytest.importorskip("torch")
    module = importlib.import_module("gumbel_argmax.torch")
    names = {key: getattr(gumbel_argmax, key) for key in gumbel_argmax.__all__}
    found = doctest.testmod(module, extraglobs={"np": np, "torch": torch, **names})
    assert found.failed == 0 and found.attempted > 0


def test_everything_public_has_a_docstring():
    for name in gumbel_argmax.__all__:
        item = getattr(gumbel_argmax, name)
        assert item.__doc__, name
        if isinstance(item, type):
            for method, value in vars(item).items():
                if not method.startswith("_") and callable(value):
                    assert value.__doc__, f"{name}.{method}"
