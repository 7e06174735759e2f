"""Which k of n features does a prediction need? A selector chooses them for each input, a predictor sees no others.

The label is the sign of one feature: of feature 0 or 1, as feature 2 says. Which of the two is chosen tells the
predictor what feature 2 said, so that the other place is free.

    python explain.py [steps]
"""

import sys

import torch
from torch import nn

import gumbel_argmax as ga
from gumbel_argmax.torch import direct


def main(steps=400, n=10, k=2):
    torch.manual_seed(0)
    subsets = ga.Subset(n, k)
    selector = nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, n))
    predictor = nn.Sequential(nn.Linear(2 * n, 64), nn.ReLU(), nn.Linear(64, 1))
    adam = torch.optim.Adam([*selector.parameters(), *predictor.parameters()], lr=3e-3)

    def batch(count=200):
        x = torch.randn(count, n)
        return x, (torch.where(x[:, 2] > 0, x[:, 0], x[:, 1]) > 0).float()

    for step in range(steps):
        x, y = batch()

        def loss(codes, of):
            seen = torch.cat([x[of] * codes, codes], -1)
            return nn.functional.binary_cross_entropy_with_logits(predictor(seen)[:, 0], y[of], reduction="none")

        found = direct(selector(x), loss, subsets, step=step)
        adam.zero_grad()
        found.loss.mean().backward()
        adam.step()
    x, y = batch(2000)
    with torch.no_grad():
        code = torch.from_numpy(subsets.encode(subsets.solve(selector(x).numpy()).assignments))
        right = (predictor(torch.cat([x * code, code], -1))[:, 0] > 0) == (y > 0)
    share, accuracy = code.mean(0), right.float().mean().item()
    print(f"chosen how often: {[round(s, 2) for s in share.tolist()]}; predictions that are right: {accuracy:.2f}")
    return share, accuracy


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
