"""The discrete variational auto-encoder of the paper: direct optimisation through arg max, a decoder in PyTorch.

Binary digits of MNIST where GUMBEL_DATA says that they lie, else little pictures of bars.

    python vae.py [steps]
"""

import gzip
import os
import pathlib
import sys

import numpy as np
import torch
from torch import nn

import gumbel_argmax as ga
from gumbel_argmax.torch import direct, kl_to_uniform, potentials


def images():
    """Binary images [images, pixels]."""
    folder = pathlib.Path(os.environ.get("GUMBEL_DATA", "nowhere")) / "mnist"
    for file in sorted(folder.glob("train-images*")):
        data = file.read_bytes()
        data = gzip.decompress(data) if file.suffix == ".gz" else data
        pixels = np.frombuffer(data, np.uint8, offset=16).reshape(-1, 784)[:10_000]
        return torch.from_numpy((pixels > 127).astype(np.float32))
    generator = np.random.default_rng(0)
    rows, columns = generator.random((4000, 8, 1)) < 0.2, generator.random((4000, 1, 8)) < 0.2
    return torch.from_numpy((rows | columns).reshape(4000, 64).astype(np.float32))


def main(steps=1500):
    torch.manual_seed(0)
    x = images()
    latent = ga.Supermodular(10)  # ten binary variables, any two of which may attract each other
    encoder = nn.Sequential(nn.Linear(x.shape[1], 128), nn.ReLU(), nn.Linear(128, latent.potentials))
    decoder = nn.Sequential(nn.Linear(latent.unary, 128), nn.ReLU(), nn.Linear(128, x.shape[1]))
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    bounds = []
    for step in range(steps):
        batch = x[torch.randint(len(x), (100,))]

        def loss(codes, of):  # -ln p(x | z) in nats
            logits = decoder(codes)
            return nn.functional.binary_cross_entropy_with_logits(logits, batch[of], reduction="none").sum(-1)

        theta = potentials(encoder(batch), latent)
        found = direct(theta, loss, latent, step=step)
        bound = (found.loss + kl_to_uniform(theta, latent)).mean()
        adam.zero_grad()
        bound.backward()
        adam.step()
        bounds.append(bound.item())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: bound {np.mean(bounds[-100:]):.2f} nats")
    return bounds


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
