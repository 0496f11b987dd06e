"""Makes apgd/: a small classifier of Fashion-MNIST without a defence, and its accuracy under APGD in PyTorch.

    python3 apgd.py [FOLDER]    # seeded; FOLDER holds Fashion-MNIST (default /usr/share/datasets/fashion-mnist)

Trains two strided convolutions and a linear layer. APGD is algorithm 1 of Croce and Hein (2020), written from the paper.

net.safetensors  the weights; the logits of the test images; losses and input gradients of the first three images.
robust.json      for every (attack, norm, eps) the number of images that are still classified correctly after the attack.
*.gz             the first test images and their labels (IDX).
"""

import gzip
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

DATA = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
OUT = Path(__file__).parent / "apgd"
IMAGES = 200
STEPS = 50
CASES = [("linf", 1 / 255), ("linf", 2 / 255), ("linf", 4 / 255), ("linf", 8 / 255), ("l2", 0.1), ("l2", 0.25), ("l2", 0.5)]


def idx(name):
    raw = gzip.decompress((DATA / f"{name}-ubyte.gz").read_bytes())
    dims = raw[3]
    shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.conv2 = torch.nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.linear = torch.nn.Linear(16 * 7 * 7, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return self.linear(x.flatten(1))


def train(net):
    images = torch.tensor(idx("train-images-idx3")).float().div(255).unsqueeze(1)
    labels = torch.tensor(idx("train-labels-idx1")).long()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for epoch in range(4):
        order = torch.randperm(len(images))
        for at in range(0, len(order), 128):
            batch = order[at : at + 128]
            loss = F.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def dlr(z, y):
    ordered = z.sort(dim=1, descending=True).values
    own = z.gather(1, y[:, None])[:, 0]
    others = z.scatter(1, y[:, None], -math.inf).max(1).values
    return -(own - others) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def targeted_dlr(z, y, t):
    ordered = z.sort(dim=1, descending=True).values
    own = z.gather(1, y[:, None])[:, 0]
    target = z.gather(1, t[:, None])[:, 0]
    return -(own - target) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)


def norm2(v):
    return v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def project(z, x, eps, norm):
    if norm == "linf":
        return torch.max(torch.min(z, x + eps), x - eps).clamp(0, 1)
    # Project onto the ball first. Clamping to the box afterwards only moves the point closer to x.
    d = z - x
    return (x + d * (eps / norm2(d).clamp(min=1e-12)).clamp(max=1)).clamp(0, 1)


def direction(g, norm):
    return g.sign() if norm == "linf" else g / norm2(g).clamp(min=1e-12)


def checkpoints(steps):
    p = [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    return {math.ceil(share * steps) for share in p[1:] if share <= 1}


def apgd(net, x, loss, y, eps, norm, steps):
    """Runs one restart of APGD. Returns which images were misclassified at any of its points."""
    noise = torch.rand_like(x) * 2 - 1 if norm == "linf" else torch.randn_like(x)
    start = noise * eps if norm == "linf" else noise / norm2(noise) * eps
    at = project(x + start, x, eps, norm)

    def evaluate(point):
        point = point.detach().requires_grad_()
        z = net(point)
        value = loss(z)
        return value.detach(), torch.autograd.grad(value.sum(), point)[0], z.argmax(1) != y

    value, grad, broken = evaluate(at)
    best, best_value, best_grad = at.clone(), value.clone(), grad.clone()
    eta = torch.full((len(x), 1, 1, 1), 2 * eps)
    before = at.clone()
    marks, last = checkpoints(steps), 0
    rises = torch.zeros(len(x))
    eta_then, best_then = eta.clone(), best_value.clone()
    for k in range(steps):
        z = project(at + eta * direction(grad, norm), x, eps, norm)
        share = 0.75 if k > 0 else 1.0
        new = project(at + share * (z - at) + (1 - share) * (at - before), x, eps, norm)
        before, at = at, new
        old = value
        value, grad, now = evaluate(at)
        broken |= now
        rises += (value > old).float()
        better = value > best_value
        best[better], best_value[better], best_grad[better] = at[better], value[better], grad[better]
        if k + 1 in marks:
            few = rises < 0.75 * (k + 1 - last)
            still = (eta_then == eta).flatten() & (best_then == best_value)
            halve = few | still
            eta_then, best_then = eta.clone(), best_value.clone()
            eta[halve] /= 2
            at, grad, value = at.clone(), grad.clone(), value.clone()
            at[halve], grad[halve], value[halve] = best[halve], best_grad[halve], best_value[halve]
            rises.zero_()
            last = k + 1
    return broken


def main():
    torch.manual_seed(4)
    torch.set_num_threads(1)
    net = Net()
    train(net)
    for p in net.parameters():
        p.requires_grad_(False)
    x = torch.tensor(idx("t10k-images-idx3")[:IMAGES]).float().div(255).unsqueeze(1)
    y = torch.tensor(idx("t10k-labels-idx1")[:IMAGES]).long()
    clean = net(x)
    print("clean", (clean.argmax(1) == y).sum().item())

    rows = []
    for norm, eps in CASES:
        held = {}
        held["apgd-ce"] = apgd(net, x, lambda z: F.cross_entropy(z, y, reduction="none"), y, eps, norm, STEPS)
        held["apgd-dlr"] = apgd(net, x, lambda z: dlr(z, y), y, eps, norm, STEPS)
        wrong = clean.scatter(1, y[:, None], -math.inf).sort(dim=1, descending=True).indices
        broken = torch.zeros(IMAGES, dtype=torch.bool)
        for target in range(9):
            t = wrong[:, target]
            broken |= apgd(net, x, lambda z: targeted_dlr(z, y, t), y, eps, norm, STEPS)
        held["apgd-t"] = broken
        for attack, fell in held.items():
            fell = fell | (clean.argmax(1) != y)
            rows.append({"attack": attack, "norm": norm, "eps": eps, "robust": int((~fell).sum())})
            print(rows[-1], flush=True)

    point = x[:3].clone().requires_grad_()
    logits = net(point)
    losses = {
        "ce": F.cross_entropy(logits, y[:3], reduction="none"),
        "dlr": dlr(logits, y[:3]),
        "targetedDlr": targeted_dlr(logits, y[:3], wrong[:3, 1]),
    }
    gradients = {
        f"gradient.{name}": torch.autograd.grad(value.sum(), point, retain_graph=True)[0].numpy()
        for name, value in losses.items()
    }
    OUT.mkdir(exist_ok=True)
    weights = {name: p.detach().numpy() for name, p in net.state_dict().items()}
    extra = {f"loss.{name}": value.detach().numpy() for name, value in losses.items()}
    save_file({**weights, **gradients, **extra, "logits": clean.numpy()}, OUT / "net.safetensors")
    summary = {"images": IMAGES, "steps": STEPS, "clean": int((clean.argmax(1) == y).sum()), "targets": wrong[:3, 1].tolist(), "cases": rows}
    (OUT / "robust.json").write_text(json.dumps(summary, indent=1) + "\n")
    for name, array in (("images-idx3", x.mul(255).round().byte().numpy().squeeze(1)), ("labels-idx1", y.byte().numpy())):
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (OUT / f"{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes(), mtime=0))


main()
