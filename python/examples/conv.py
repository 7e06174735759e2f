"""A structured auto-encoder with convolutions: twelve coupled bits, encoder and decoder of PyTorch's.

The couplings have any sign, so that the arg max is an integer programme, solved exactly. A search that the slopes of
the decoder guide finds the second arg max with the true loss (`joint="search"`): interactions of the bits in the
decoder are not left out. Fashion-MNIST where GUMBEL_DATA says that it lies, else little pictures of shapes.

    python conv.py [steps]
"""

import gzip
import os
import pathlib
import sys

import numpy as np
import torch
from torch import nn

import gumbel_argmax as ga
from gumbel_argmax.torch import direct, kl_to_uniform


def images():
    """Pictures [images, 1, 28, 28] or [images, 1, 16, 16] with values from 0 to 1."""
    folder = pathlib.Path(os.environ.get("GUMBEL_DATA", "nowhere")) / "fashion-mnist"
    for file in sorted(folder.glob("train-images*")):
        data = file.read_bytes()
        data = gzip.decompress(data) if file.suffix == ".gz" else data
        pixels = np.frombuffer(data, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:10_000]
        return torch.from_numpy(pixels / np.float32(255))
    generator = np.random.default_rng(0)
    i, j = np.mgrid[:16, :16]
    y, x, radius = generator.integers(4, 12, (2000, 1, 1)), generator.integers(4, 12, (2000, 1, 1)), 3.5
    away, along = np.hypot(i - y, j - x), np.minimum(np.abs(i - y), np.abs(j - x))
    ring, cross = np.abs(away - radius) < 1, (along < 1) & (away < radius)
    made = np.where(generator.random((2000, 1, 1)) < 0.5, ring, cross)
    return torch.from_numpy(made[:, None].astype(np.float32))


def networks(latent, side, width=16):
    """An encoder from pictures to potentials, a decoder from codes to logits of pixels."""
    quarter = side // 4
    encoder = nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(width * quarter**2, latent.potentials),
    ) # fmt: skip
    decoder = nn.Sequential(
        nn.Linear(latent.unary, width * quarter**2), nn.ReLU(), nn.Unflatten(1, (width, quarter, quarter)),
        nn.ConvTranspose2d(width, width, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(width, 1, 4, 2, 1),
    ) # fmt: skip
    return encoder, decoder


def main(steps=600):
    torch.manual_seed(0)
    x = images()
    latent = ga.Pairwise(12)
    encoder, decoder = networks(latent, x.shape[-1])
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    bounds = []
    for step in range(steps):
        batch = x[torch.randint(len(x), (50,))]

        def loss(codes, of): # -ln p(x | z) in nats
            logits = decoder(codes)
            return nn.functional.binary_cross_entropy_with_logits(logits, batch[of], reduction="none").sum((1, 2, 3))

        theta = encoder(batch)
        found = direct(theta, loss, latent, step=step, joint="search", first="slopes", rounds=1)
        bound = (found.loss + kl_to_uniform(theta, latent)).mean()
        adam.zero_grad()
        bound.backward()
        adam.step()
        bounds.append(bound.item())
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}: bound {np.mean(bounds[-50:]):.2f} nats")
    return bounds


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
