"""Learning to sort from examples: a layer of permutations inside a network, of which only the sorted list is known.

The network scores how large each of n numbers is, seen through a curve that it does not know; the scores of rank r
are `r * score`, so that the best permutation sorts. Its loss is the distance of the permuted numbers from the sorted
ones, through the code of a perturbed arg max (implicit maximum likelihood).

    python sorting.py [steps]
"""

import sys

import torch
from torch import nn

import gumbel_argmax as ga
from gumbel_argmax.torch import Argmax


def main(steps=300, n=6):
    torch.manual_seed(0)
    permutations = ga.Permutation(n)
    layer = Argmax(permutations, "imle", samples=4, imle_lambda=2.0)
    scorer = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
    adam = torch.optim.Adam(scorer.parameters(), lr=0.01)
    ranks = torch.arange(n, dtype=torch.float32) - (n - 1) / 2

    def batch():
        values = torch.rand(64, n)
        return values, torch.stack([torch.cos(3 * values), torch.sin(3 * values)], -1)  # what is seen of them

    def theta(seen):
        return (scorer(seen) * ranks).reshape(len(seen), n * n)  # [row i, rank]

    def exact():
        values, seen = batch()
        with torch.no_grad():
            found = permutations.solve(theta(seen).numpy()).assignments
        right = torch.from_numpy(found.astype("int64")) == values.argsort(1).argsort(1)
        return right.float().mean().item()

    print(f"ranks that are right before: {exact():.2f}")
    for step in range(steps):
        values, seen = batch()
        code = layer(4 * theta(seen)).reshape(-1, len(values), n, n)
        placed = (code * values[None, :, :, None]).sum(2)
        loss = (placed - values.sort(1).values).square().sum(-1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    share = exact()
    print(f"ranks that are right after {steps} steps: {share:.2f}")
    return share


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
