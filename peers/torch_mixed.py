#!/usr/bin/env python3
"""The paper's semi-supervised mixed model in PyTorch, as its authors train it: accuracy by epoch, milliseconds a step.

    peers/torch_mixed.py --dataset mnist --labels-from RUN/labels.json --passes 1200 --epochs 10 --threads 1

The labelled images are those of a run of `gumbel` (`labels.json`), or the first of every class. Data come from --data-dir or
GUMBEL_DATA. `--grey-labels` leaves labelled images grey, as the authors' code does; all others are rounded.
"""
import argparse
import gzip
import json
import os
import pathlib
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

K, D = 10, 30


def idx(path):
    data = gzip.open(path).read()
    dims = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(784, 400), nn.LeakyReLU(0.2), nn.Linear(400, 200))
        self.head = nn.Sequential(nn.Linear(200, 100), nn.LeakyReLU(0.2), nn.Linear(100, K))
        self.parts = nn.Linear(200, K * 100)
        self.shared = nn.Sequential(nn.Linear(100, 66), nn.LeakyReLU(0.5), nn.Dropout(0.5), nn.Linear(66, 2 * D))
        self.decoder = nn.Sequential(nn.Linear(K * D, 400), nn.ReLU(), nn.Linear(400, 784))

    def encode(self, x):
        t = self.trunk(x)
        mean, log_variance = self.shared(self.parts(t).reshape(-1, K, 100)).chunk(2, -1)
        return self.head(t), mean, log_variance

    def all_states(self, c):
        """The logits of every state, [B, K, 784]: of the first layer only the block of the state's own row."""
        first, *_, last = self.decoder
        weight = first.weight.reshape(-1, K, D)  # [400, K, D]
        return last(F.relu(torch.einsum("bkd,hkd->bkh", c, weight) + first.bias))

    def decode(self, z, c):
        """z one-hot [B, K], c [B, K, D]."""
        return self.decoder((z.unsqueeze(-1) * c).reshape(len(z), K * D))


def bce(logits, x):
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


def losses_naive(model, c, x):
    """-ln p(x | k, c_k), [B, K], as the authors have it: the whole decoder for every state."""
    states = (F.one_hot(torch.full((len(x),), k), K).float() for k in range(K))
    return torch.stack([bce(model.decode(z, c), x) for z in states], -1)


def losses_shared(model, c, x):
    """The same from shared work in the first layer."""
    logits = model.all_states(c)
    return bce(logits, x.unsqueeze(1).expand_as(logits))


def surrogate(model, x, epsilon, label=None, losses_of=losses_naive):
    """Its gradient is the step of the authors: of images without a label, or with."""
    h, mean, log_variance = model.encode(x)
    c = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    kl = 0.5 * (mean ** 2 + log_variance.exp() - 1 - log_variance).sum(-1)
    gamma = -torch.empty_like(h).exponential_().log()
    star = F.one_hot((h.detach() + gamma).argmax(-1), K).float()
    if label is None:
        with torch.no_grad():
            other = F.one_hot((h + gamma - epsilon * losses_of(model, c, x)).argmax(-1), K).float()
        followed = star
    else:
        other = followed = F.one_hot(label, K).float()
    loss = (bce(model.decode(followed, c), x) + (followed * kl).sum(-1)).mean()
    return loss + ((star - other) * h).sum(-1).mean() / epsilon


def step(model, optimiser, x, epsilon, label=None):
    loss = surrogate(model, x, epsilon, label)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", default=os.environ.get("GUMBEL_DATA", "."))
    parser.add_argument("--labels-from", type=pathlib.Path)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--passes", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--epsilon", type=float, nargs=2, default=[1.0, 0.1], help="of the first epoch, and from then on")
    parser.add_argument("--grey-labels", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    folder = pathlib.Path(args.data_dir) / args.dataset
    grey = torch.from_numpy(idx(folder / "train-images-idx3-ubyte.gz").reshape(-1, 784)[:50000] / np.float32(255))
    labels = torch.from_numpy(idx(folder / "train-labels-idx1-ubyte.gz")[:50000].astype(np.int64))
    test = torch.from_numpy(idx(folder / "t10k-images-idx3-ubyte.gz").reshape(-1, 784) / np.float32(255)).round()
    truth = torch.from_numpy(idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64))
    if args.labels_from:
        chosen = torch.tensor(json.loads(args.labels_from.read_text())["images"])
    else:
        chosen = torch.cat([(labels == k).nonzero()[:args.labels // K, 0] for k in range(K)])
    x = grey.round()
    labelled = grey[chosen] if args.grey_labels else x[chosen]
    model = Model()
    optimiser = torch.optim.Adam(model.parameters(), lr=8e-4)

    def accuracy():
        model.eval()
        with torch.no_grad():
            found = (model.head(model.trunk(test)).argmax(-1) == truth).float().mean().item()
        model.train()
        return 100 * found

    began = time.perf_counter()
    for _ in range(args.passes):
        for batch in torch.randperm(len(chosen)).split(100):
            step(model, optimiser, labelled[batch], 0.05, labels[chosen[batch]])
    print(json.dumps({"epoch": 0, "accuracy": round(accuracy(), 2), "seconds": round(time.perf_counter() - began, 1)}), flush=True)
    for epoch in range(args.epochs):
        began, steps = time.perf_counter(), 0
        for batch in torch.randperm(len(x)).split(100):
            step(model, optimiser, x[batch], args.epsilon[min(epoch, 1)])
            steps += 1
        ms = 1000 * (time.perf_counter() - began) / steps
        print(json.dumps({"epoch": epoch + 1, "accuracy": round(accuracy(), 2), "step_ms": round(ms, 2)}), flush=True)


if __name__ == "__main__":
    main()
