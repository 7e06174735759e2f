#!/usr/bin/env python3
"""An independent classifier that says what a sample is: is it of the class, or has it the attribute, that was meant?

    experiments/classifier.py --dataset mnist --model mnist.pt samples.safetensors           Figure 4
    experiments/classifier.py --dataset celeba --attributes Eyeglasses,Smiling,Male --model faces.pt faces.safetensors

The files are those of `gumbel sample --out FILE.safetensors` and `gumbel attributes --out FILE.safetensors`. The classifier is a
convolutional network trained on the real labels of the training images; it is kept in --model and trained where that file is
absent; its own accuracy on the test images, in percent, is `classifier` in every line. Needs torch, numpy, safetensors; faces
need pillow. Data come from --data-dir or GUMBEL_DATA. One JSON object to a line, shares in percent:

digits   model; images; as_meant: the share that is seen as the class of its column; as_most: as the class that most of its
         column are seen as, for classes that have no names; classes_seen
faces    a line for each attribute. model, codes (of the prior, or of test images); images; seen, seen_on, seen_off: the share
         in which the attribute is seen as it was set, of all, of those with it, of those without; turned, turned_on, turned_off:
         the same of test images whose own label is the opposite; pairs: the share of pairs that differ in this attribute alone
         and in which it is seen in the one and not in the other
"""
import argparse
import gzip
import io
import json
import os
import pathlib
import zipfile

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.numpy import load_file


def idx(path):
    data = gzip.open(path).read()
    dims = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


def digits(folder):
    def part(prefix):
        x = idx(folder / f"{prefix}-images-idx3-ubyte.gz")[..., None]
        return torch.from_numpy(x.copy()), torch.from_numpy(idx(folder / f"{prefix}-labels-idx1-ubyte.gz").astype(np.int64))
    return part("train"), part("t10k")


def faces(folder, names):
    """Training and test images; the half-size images, all of the training part, are beside them."""
    from PIL import Image

    def table(path):
        lines = path.read_text().split("\n")
        columns = [lines[1].split().index(name) for name in names]
        rows = (line.split() for line in lines[2:] if line.strip())
        return {row[0]: [int(row[1 + c] == "1") for c in columns] for row in rows}

    def read(name, known, scale):
        images, labels = {}, {}
        with zipfile.ZipFile(folder / name) as z:
            for file in z.namelist():
                if file.endswith(".jpg"):
                    image = Image.open(io.BytesIO(z.read(file))).convert("RGB")
                    box = [v * scale for v in (15, 40, 163, 188)]
                    key = file.rsplit("/", 1)[-1]
                    images[key] = np.asarray(image.resize((64, 64), Image.BOX, box=box))
                    labels[key] = known[key]
        return images, labels

    images, labels = read("img_align_celeba.zip", table(folder / "list_attr_celeba.txt"), 1)
    lines = (folder / "list_eval_partition.txt").read_text().split("\n")
    part = {name: int(which) for name, which in (line.split() for line in lines if line.strip())}

    def of(which):
        keys = sorted(key for key in images if part[key] in which)
        return [images[k] for k in keys], [labels[k] for k in keys]

    x, y = of({0, 1})
    half = folder / "img_align_celeba_half.zip"
    if half.exists():
        more, known = read(half.name, table(folder / "list_attr_celeba_half.txt"), 0.5)
        fresh = [key for key in more if key not in images]
        x, y = x + [more[k] for k in fresh], y + [known[k] for k in fresh]
    tensor = lambda x, y: (torch.from_numpy(np.stack(x)), torch.tensor(y))
    return tensor(x, y), tensor(*of({2}))


def network(side, channels, outputs):
    layers, width = [], channels
    for out in ([32, 64] if side == 28 else [32, 64, 96, 128]):
        layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        width = out
    rest = width * (49 if side == 28 else 16)
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(rest, 128), nn.ReLU(), nn.Linear(128, outputs))


def planes(x):
    return x.permute(0, 3, 1, 2).float()


def train(model, x, y, epochs, colour):
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = epochs * -(-len(x) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(128):
            image = planes(x[batch]) / 255
            if colour and torch.rand(()) < 0.5:
                image = image.flip(-1)
            if torch.rand(()) < 0.5:  # samples are smoother than photographs and digits
                image = F.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
            out = model(image)
            loss = F.binary_cross_entropy_with_logits(out, y[batch].float()) if colour else F.cross_entropy(out, y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def logits(model, x):
    with torch.no_grad():
        return torch.cat([model(planes(part)) for part in x.split(1000)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", default=os.environ.get("GUMBEL_DATA", "."))
    parser.add_argument("--attributes", default="Eyeglasses,Smiling,Male")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    colour, folder = args.dataset == "celeba", pathlib.Path(args.data_dir) / args.dataset
    names = args.attributes.split(",") if colour else []
    (x, y), (test, truth) = faces(folder, names) if colour else digits(folder)
    model = network(64 if colour else 28, 3 if colour else 1, len(names) if colour else int(y.max()) + 1)
    if args.model.exists():
        model.load_state_dict(torch.load(args.model))
    else:
        train(model, x, y, args.epochs or (15 if colour else 4), colour)
        torch.save(model.state_dict(), args.model)
    model.eval()
    found = logits(model, test / 255)
    right = ((found > 0).long() == truth).float().mean(0) if colour else (found.argmax(-1) == truth).float().mean()
    for file in args.files:
        stored = load_file(file)
        say = faces_seen if colour else digits_seen
        for line in say(model, stored, test, truth, right, names):
            print(json.dumps({"model": file.stem} | line))


def percent(share):
    """Of nothing there is no share."""
    return round(100 * float(share), 2) if share == share else None


def seen_in(model, images):
    images = torch.from_numpy(images)
    return logits(model, images.reshape(-1, *images.shape[2:])).reshape(*images.shape[:2], -1)


def digits_seen(model, stored, _test, _truth, right, _names):
    seen, meant = seen_in(model, stored["images"]).argmax(-1), torch.from_numpy(stored["classes"].astype(np.int64))
    most = seen.mode(0).values
    yield {"images": seen.numel(), "as_meant": percent((seen == meant).float().mean()),
           "as_most": percent((seen == most).float().mean()), "classes_seen": len(set(most.tolist())),
           "classifier": percent(right)}


def faces_seen(model, stored, test, truth, right, names):
    set_to = torch.from_numpy(stored["attributes"]).bool()
    columns = len(set_to)
    for part, codes in (("images", "of the prior"), ("encoded", "of test images")):
        if part not in stored or stored[part].size == 0:
            continue
        on = seen_in(model, stored[part]) > 0
        rows = len(on)
        own = None
        if part == "encoded":
            # The program takes the test images in the order of their names, as this file does.
            apart = (torch.from_numpy(stored["originals"]) - test[:rows] / 255).abs().mean()
            assert apart < 0.02, f"originals are not the first test images: {apart} apart"
            own = truth[:rows].bool()
        for a, name in enumerate(names):
            meant = set_to[:, a].expand(rows, columns)
            agree = on[..., a] == meant
            line = {"codes": codes, "attribute": name, "images": rows * columns, "seen": percent(agree.float().mean()),
                    "seen_on": percent(agree[meant].float().mean()), "seen_off": percent(agree[~meant].float().mean())}
            if own is not None:
                turned = meant != own[:, a, None]
                line["turned"] = percent(agree[turned].float().mean())
                line["turned_on"] = percent(agree[turned & meant].float().mean())
                line["turned_off"] = percent(agree[turned & ~meant].float().mean())
            pairs = [(i, j) for i in range(columns) for j in range(columns)
                     if set_to[i, a] and not set_to[j, a] and (set_to[i] != set_to[j]).sum() == 1]
            line["pairs"] = percent(np.mean([(on[:, i, a] & ~on[:, j, a]).float().mean().item() for i, j in pairs]))
            yield line | {"classifier": percent(right[a])}


main()
