"""Exact arg max and honest gradients for discrete latent variables.

A *structure* is a finite set of assignments ``z = (z_1, ..., z_n)`` with scores ``<theta, s(z)>`` that are linear in
its *potentials* ``theta`` (P numbers, the last axis of an array; any axes before it are a batch). The first U of the
statistics ``s(z)`` are the *code* of an assignment: what a decoder reads.

>>> import numpy as np
>>> import gumbel_argmax as ga
>>> chain = ga.Chain(3, 2)
>>> theta = ga.gumbel((4, chain.potentials), seed=0)
>>> found = chain.solve(theta)
>>> found.assignments.shape, found.values.shape, bool(found.proved.all())
((4, 3), (4,), True)

Gradients for PyTorch are in :mod:`gumbel_argmax.torch`, for JAX in :mod:`gumbel_argmax.jax`. A structure of one's own
is a :class:`Custom`; :mod:`gumbel_argmax.testing` checks it.
"""

from ._custom import Custom
from ._estimators import Estimate, Estimator, EstimatorInfo, SettingInfo, estimators
from ._native import VERSION as __version__
from ._structures import (
    Arborescence,
    Binary,
    Categorical,
    Chain,
    Pairwise,
    Permutation,
    Product,
    Solution,
    SpanningTree,
    Structure,
    Subset,
    Supermodular,
    Tree,
    Unproved,
    gumbel,
)

__all__ = [
    "Arborescence",
    "Binary",
    "Categorical",
    "Chain",
    "Custom",
    "Estimate",
    "Estimator",
    "EstimatorInfo",
    "Pairwise",
    "Permutation",
    "Product",
    "SettingInfo",
    "Solution",
    "SpanningTree",
    "Structure",
    "Subset",
    "Supermodular",
    "Tree",
    "Unproved",
    "__version__",
    "estimators",
    "gumbel",
]
