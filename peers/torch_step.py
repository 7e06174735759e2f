#!/usr/bin/env python3
"""Milliseconds per training step of the paper's MLP in PyTorch, on the CPU.

The model is that of Lorberbom et al. 2019 with one K-way latent: encoder 784-300-ReLU-K, decoder K-300-ReLU-784,
Bernoulli pixels, batch 100, Adam at 1e-3, f32, eager mode. One step is: draw the noise, forward, backward, Adam.
Reading the data and cutting it into batches happen before the clock starts.

Modes (all of them minimise nats per image, averaged over the batch):

    direct-naive     direct optimisation as the authors run it: B*K decoder rows without gradient for z(eps),
                     and B rows with gradient at z*
    direct-table     the same estimate from the K decoder rows that all examples share
    gumbel-softmax   one relaxed sample per example
    exact            the exact expectation over z, from the table
    exact-naive      the exact expectation over z, from B*K decoder rows
    mixed-naive      the authors' semi-supervised model with a Gaussian code of 30 dimensions for each of ten states
                     (torch_mixed.py), a step of direct optimisation without labels: the whole decoder for every state
    mixed-shared     the same, with the first layer of every state from its own block of weights

The KL term is off for the direct modes (so the authors trained them) and on for the others; `--kl` overrides.

With `--vs CMD` each measurement alternates with an external command that prints a JSON line with "step_ms".
Ratios are PyTorch's time over the command's time: above 1, the command is the faster one.
"""

import argparse
import gzip
import json
import os
import shlex
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import torch_mixed

PIXELS = 784
HIDDEN = 300
BATCH = 100
LEARNING_RATE = 1e-3
EPSILON = 1.0  # of the direct estimate; its value does not change the work done
TEMPERATURE = 1.0  # of Gumbel-Softmax; likewise
IMAGES_FILE = "train-images-idx3-ubyte.gz"
TRAIN_IMAGES = 50_000  # the paper's training split


class Failure(Exception):
    """Something outside this program went wrong: the message is all that the user needs."""


# ---------------------------------------------------------------------------------------------------------- data


def read_idx_images(path):
    """Images of a gzipped IDX file, as uint8 [count, rows * columns]."""
    with gzip.open(path, "rb") as file:
        raw = file.read()
    magic, count, rows, columns = np.frombuffer(raw, dtype=">u4", count=4).tolist()
    if magic != 0x0803 or rows * columns != PIXELS:
        raise Failure(f"{path}: not an IDX file of 28 x 28 images")
    if len(raw) != 16 + count * PIXELS:
        raise Failure(f"{path}: {len(raw)} bytes do not hold {count} images")
    return np.frombuffer(raw, dtype=np.uint8, offset=16).reshape(count, PIXELS)


def mnist_images(data_dir):
    """MNIST training images rounded at 0.5, from DIR/mnist/ or DIR itself."""
    candidates = [Path(data_dir) / "mnist" / IMAGES_FILE, Path(data_dir) / IMAGES_FILE]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise Failure(f"no {IMAGES_FILE} in {candidates[0].parent} or {candidates[1].parent}")
    try:
        images = read_idx_images(path)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise Failure(f"{path}: {error}") from error
    return images[:TRAIN_IMAGES] > 127  # 128 / 255 is the first value above 0.5


def synthetic_images(seed):
    """Independent pixels, on as often as MNIST's. Nothing to learn here: for machines without the data."""
    return np.random.default_rng(seed).random((20 * BATCH, PIXELS)) < 0.13


def make_batches(images, seed):
    """Shuffled full batches, each a contiguous f32 tensor [BATCH, PIXELS]."""
    order = np.random.default_rng(seed).permutation(len(images))
    count = len(images) // BATCH
    return [torch.from_numpy(images[order[i * BATCH : (i + 1) * BATCH]].astype(np.float32)) for i in range(count)]


# ---------------------------------------------------------------------------------------------------- estimators
#
# Each takes the model and a batch x [B, PIXELS] and returns a scalar whose gradient is the estimate.


class Model(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.k = k
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, k))
        self.decoder = nn.Sequential(nn.Linear(k, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))
        self.register_buffer("categories", torch.eye(k))  # one-hots of all K categories, [K, K]


def gumbel_like(h):
    return -torch.empty_like(h).exponential_().log()


def kl_to_uniform(h):
    """KL(softmax(h) || uniform) per example, [B]."""
    log_q = F.log_softmax(h, dim=1)
    return (log_q.exp() * (log_q + np.log(h.shape[1]))).sum(1)


def bernoulli_loss(logits, x):
    """-log p(x | logits) in nats, summed over pixels."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


def losses_naive(model, x):
    """-f(x, k) for every example and category, [B, K], by decoding the K one-hots of every example."""
    batch = x.shape[0]
    logits = model.decoder(model.categories.repeat(batch, 1)).view(batch, model.k, PIXELS)
    return bernoulli_loss(logits, x.unsqueeze(1).expand_as(logits))


def losses_table(model, x):
    """The same [B, K] from one table of K decoder rows: the decoder does not see x."""
    table = model.decoder(model.categories)  # [K, PIXELS]
    return F.softplus(table).sum(1) - x @ table.T


def direct_surrogate(h, gamma, z, losses):
    """Its gradient at the potentials h is (onehot(z*) - onehot(z(eps))) / eps."""
    with torch.no_grad():
        z_eps = (h + gamma - EPSILON * losses).argmax(1)
        direction = (F.one_hot(z, h.shape[1]) - F.one_hot(z_eps, h.shape[1])) / EPSILON
    return (h * direction).sum(1)


def direct_naive(model, x, kl):
    h = model.encoder(x)
    gamma = gumbel_like(h)
    z = (h + gamma).argmax(1)
    reconstruction = bernoulli_loss(model.decoder(F.one_hot(z, model.k).to(x.dtype)), x)
    with torch.no_grad():
        losses = losses_naive(model, x)
    return with_kl(reconstruction + direct_surrogate(h, gamma, z, losses), h, kl)


def direct_table(model, x, kl):
    h = model.encoder(x)
    gamma = gumbel_like(h)
    z = (h + gamma).argmax(1)
    losses = losses_table(model, x)
    reconstruction = losses.gather(1, z.unsqueeze(1)).squeeze(1)
    return with_kl(reconstruction + direct_surrogate(h, gamma, z, losses), h, kl)


def gumbel_softmax(model, x, kl):
    h = model.encoder(x)
    relaxed = F.softmax((h + gumbel_like(h)) / TEMPERATURE, dim=1)
    return with_kl(bernoulli_loss(model.decoder(relaxed), x), h, kl)


def exact(model, x, kl, losses_of=losses_table):
    h = model.encoder(x)
    return with_kl((F.softmax(h, dim=1) * losses_of(model, x)).sum(1), h, kl)


def exact_naive(model, x, kl):
    return exact(model, x, kl, losses_naive)


def mixed(losses_of):
    """Direct optimisation of the mixed model, whose total loss has no KL of z."""
    return lambda model, x, kl: torch_mixed.surrogate(model, x, EPSILON, losses_of=losses_of)


def with_kl(loss, h, kl):
    """Mean over the batch of the per-example loss [B], with the KL term where it is on."""
    return (loss + kl_to_uniform(h) if kl else loss).mean()


# name: (estimator, KL on unless --kl says otherwise)
MODES = {
    "direct-naive": (direct_naive, False),
    "direct-table": (direct_table, False),
    "gumbel-softmax": (gumbel_softmax, True),
    "exact": (exact, True),
    "exact-naive": (exact_naive, True),
    "mixed-naive": (mixed(torch_mixed.losses_naive), False),
    "mixed-shared": (mixed(torch_mixed.losses_shared), False),
}


# --------------------------------------------------------------------------------------------------- measurement


def measure(mode, k, batches, args):
    """One fresh model, warm-up, then `steps` timed steps. Returns the JSON record."""
    estimator, kl = MODES[mode]
    if args.kl is not None:
        kl = args.kl == "on"
    torch.manual_seed(args.seed)
    model = torch_mixed.Model() if mode.startswith("mixed") else Model(k)
    # `foreach` stays at PyTorch's default for the CPU when Adam is not fused.
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True if args.fused_adam else None)

    times = []
    for step in range(args.warmup + args.steps):
        x = batches[step % len(batches)]
        start = time.perf_counter()
        optimiser.zero_grad()
        loss = estimator(model, x, kl)
        loss.backward()
        optimiser.step()
        times.append(time.perf_counter() - start)

    p10, median, p90 = 1e3 * np.percentile(times[args.warmup :], [10, 50, 90])
    return {
        "peer": "pytorch",
        "version": torch.__version__,
        "mode": mode,
        "k": k,
        "threads": torch.get_num_threads(),
        "fused_adam": args.fused_adam,
        "kl": kl,
        "data": "synthetic" if args.synthetic else "mnist",
        "step_ms": round(float(median), 4),
        "p10": round(float(p10), 4),
        "p90": round(float(p90), 4),
        "steps": args.steps,
        # Of the last batch; for the direct modes it holds the surrogate. It says that the model learns, no more.
        "last_loss": round(loss.item(), 3),
    }


def run_external(command, k, threads):
    """step_ms from the last JSON object with that field which the command prints."""
    words = [word.replace("{k}", str(k)).replace("{threads}", str(threads)) for word in shlex.split(command)]
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        raise Failure(f"cannot run {words[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise Failure(f"{shlex.join(words)}: exit status {done.returncode}")
    for line in reversed(done.stdout.splitlines()):
        try:
            return float(json.loads(line)["step_ms"])
        except (ValueError, TypeError, KeyError):
            continue
    raise Failure(f'{shlex.join(words)}: printed no JSON line with "step_ms"')


def compare(mode, k, batches, args):
    """Alternates with the external command; yields a record per round and the summary."""
    ours, theirs = [], []
    for round_number in range(1, args.rounds + 1):
        # Every second round runs the command first, so that a drift of the machine favours neither.
        if round_number % 2 == 0:
            theirs.append(run_external(args.vs, k, args.threads))
        record = measure(mode, k, batches, args)
        ours.append(record["step_ms"])
        if round_number % 2 == 1:
            theirs.append(run_external(args.vs, k, args.threads))
        if theirs[-1] <= 0:
            raise Failure(f"the command reports step_ms = {theirs[-1]}")
        yield {**record, "round": round_number, "vs_step_ms": theirs[-1], "ratio": round(ours[-1] / theirs[-1], 4)}
    ratios = np.array(ours) / np.array(theirs)
    yield {
        "summary": "pytorch-vs",
        "version": torch.__version__,
        "mode": mode,
        "k": k,
        "threads": args.threads,
        "fused_adam": args.fused_adam,
        "kl": record["kl"],
        "rounds": args.rounds,
        "step_ms": round(float(np.median(ours)), 4),
        "vs_step_ms": round(float(np.median(theirs)), 4),
        "ratio_median": round(float(np.median(ratios)), 4),
        "ratio_min": round(float(ratios.min()), 4),
        "ratio_max": round(float(ratios.max()), 4),
    }


# -------------------------------------------------------------------------------------------------- command line


def as_text(record):
    if "summary" in record:
        return (
            f"summary {record['mode']} K={record['k']}: pytorch {record['step_ms']:.3f} ms, "
            f"command {record['vs_step_ms']:.3f} ms, ratio per round {record['ratio_median']:.2f} "
            f"(min {record['ratio_min']:.2f}, max {record['ratio_max']:.2f}, {record['rounds']} rounds)"
        )
    text = (
        f"pytorch {record['version']} {record['mode']} K={record['k']} threads={record['threads']}"
        f"{' fused-adam' if record['fused_adam'] else ''} KL {'on' if record['kl'] else 'off'}: "
        f"{record['step_ms']:.3f} ms (p10 {record['p10']:.3f}, p90 {record['p90']:.3f}, {record['steps']} steps)"
    )
    if "round" in record:
        text += f"; command {record['vs_step_ms']:.3f} ms; ratio {record['ratio']:.2f}"
    return text


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def natural(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    add = parser.add_argument
    add("--mode", nargs="+", choices=MODES, default=["direct-table"], metavar="MODE", help=", ".join(MODES))
    add("--k", nargs="+", type=positive, default=[10], metavar="K", help="categories of the latent (default 10)")
    add("--steps", type=positive, default=200, help="timed steps (default 200)")
    add("--warmup", type=natural, default=20, help="steps before them (default 20)")
    add("--threads", type=positive, default=cores, help="PyTorch's threads (default: all cores)")
    add("--seed", type=natural, default=0)
    add("--kl", choices=["on", "off"], help="overrides the mode's own setting")
    add("--fused-adam", action="store_true", help="torch.optim.Adam(fused=True)")
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data-dir", default=os.environ.get("GUMBEL_DATA"), metavar="DIR",
                      help=f"folder with mnist/{IMAGES_FILE} (default: GUMBEL_DATA)")
    data.add_argument("--synthetic", action="store_true", help="random pixels in place of MNIST")
    add("--vs", metavar="CMD", help="command to alternate with; {k} and {threads} in it are filled in; no shell")
    add("--rounds", type=positive, default=5, help="rounds of --vs (default 5)")
    add("--json", action="store_true", help="one JSON object per line")
    args = parser.parse_args(argv)
    if any(mode.startswith("mixed") for mode in args.mode) and (args.k != [torch_mixed.K] or args.kl == "on"):
        parser.error("the mixed model has ten states, and no KL of z in its loss")
    if not args.synthetic and not args.data_dir:
        parser.error("give --data-dir or set GUMBEL_DATA; or ask for --synthetic")
    if args.vs is not None:
        try:
            if not shlex.split(args.vs):
                parser.error("--vs is empty")
        except ValueError as error:
            parser.error(f"--vs: {error}")
    return args


def main(argv=None):
    args = parse(argv)
    torch.set_num_threads(args.threads)
    try:
        images = synthetic_images(args.seed) if args.synthetic else mnist_images(args.data_dir)
        batches = make_batches(images, args.seed)
        for k in args.k:
            for mode in args.mode:
                records = compare(mode, k, batches, args) if args.vs else [measure(mode, k, batches, args)]
                for record in records:
                    print(json.dumps(record) if args.json else as_text(record), flush=True)
    except Failure as failure:
        print(f"torch_step: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
