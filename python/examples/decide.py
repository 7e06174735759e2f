"""Predict, then optimise: the cheapest way through a grid whose costs are not known, but predicted from features.

A way goes through the columns from left to right and changes its row by at most one each time: a chain whose other
transitions are forbidden. The costs are no linear function of the features, the predictor is linear: it cannot be right
everywhere. What counts is the regret, what the way chosen costs more than the best one. Three losses for one predictor:

- the squared error of the costs, which does not know what they are for;
- SPO+ (Elmachtoub and Grigas, 2022), of which the slope is a difference of two arg maxima;
- the cost of the way itself, through a layer of perturbed arg maxima (Berthet et al., 2020).

    python decide.py [steps]
"""

import sys

import numpy as np
import torch
from torch import nn

import gumbel_argmax as ga
from gumbel_argmax.torch import Argmax

COLUMNS, ROWS, FEATURES = 6, 5, 5
CHAIN = ga.Chain(COLUMNS, ROWS)
STEP = torch.from_numpy(np.where(np.abs(np.subtract.outer(np.arange(ROWS), np.arange(ROWS))) < 2, 0, -np.inf)).float()


def potentials(costs):
    """Of costs [..., columns * rows]: cheap cells are good, long steps forbidden."""
    steps = STEP.reshape(-1).repeat(COLUMNS - 1).expand(*costs.shape[:-1], -1)
    return torch.cat([-costs, steps], -1)


def cheapest(costs):
    """The codes of the cheapest ways."""
    return torch.from_numpy(CHAIN.encode(CHAIN.solve(potentials(costs).numpy()).assignments))


def data(count, generator):
    """Features, and costs that are a polynomial of a linear function of them, with noise of up to a half."""
    map = (torch.rand(FEATURES, COLUMNS * ROWS, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    x = torch.randn(count, FEATURES, generator=generator)
    costs = ((x @ map) / FEATURES**0.5 + 3) ** 6 / 3**6 + 0.1
    return x, costs * (0.5 + torch.rand(costs.shape, generator=generator))


def regret(model, x, costs):
    """What the ways chosen cost more, as a share of what the best ones cost."""
    with torch.no_grad():
        best = (cheapest(costs) * costs).sum()
        return (((cheapest(model(x)) * costs).sum() - best) / best).item()


def train(loss, x, costs, steps):
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, COLUMNS * ROWS)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        rows = torch.randint(len(x), (100,))
        adam.zero_grad()
        loss(model(x[rows]), costs[rows]).backward()
        adam.step()
    return model


def main(steps=600):
    generator = torch.Generator().manual_seed(0)
    x, costs = data(1000, generator)
    x_test, costs_test = data(2000, generator)
    layer = Argmax(CHAIN, "perturbed", samples=16, mean=True)

    def squared(predicted, c):
        return (predicted - c).square().mean()

    def spo(predicted, c):
        other = cheapest(2 * predicted.detach() - c)
        return (2 * predicted * (cheapest(c) - other)).sum(-1).mean()

    def perturbed(predicted, c):
        return (layer(potentials(3 * predicted)) * c).sum(-1).mean()

    found = {}
    for loss in (squared, spo, perturbed):
        found[loss.__name__] = regret(train(loss, x, costs, steps), x_test, costs_test)
        print(f"{loss.__name__}: regret {100 * found[loss.__name__]:.1f} % of the best cost")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
