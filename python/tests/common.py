"""Structures of every kind, small enough to enumerate."""

import gumbel_argmax as ga

SMALL = [
    ga.Pairwise(5),
    ga.Supermodular(5),
    ga.Chain(4, 3),
    ga.Tree(4, 2, [(2, 0), (2, 3), (1, 3)]),
    ga.Tree(4, 3, [(0, 1), (3, 2)]),
    ga.Product(3, 3),
    ga.Binary(4),
    ga.Categorical(6),
    ga.Subset(6, 2),
    ga.Permutation(4),
    ga.SpanningTree(4),
    ga.SpanningTree(4, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 1)]),
    ga.Arborescence(4, 2),
]


def random_potentials(structure, shape, generator, scale=2.0):
    """Random potentials of a structure, float32."""
    raw = (scale * generator.standard_normal((*shape, structure.potentials))).astype("float32")
    return structure.to_potentials(raw)
