"""Every point that APGD visits in PyTorch, on a small non-linear network.

The network is logits = W2 tanh(W1 x + b1) with random weights, in f64. The algorithm is that of Croce and Hein 2020
(algorithm 1), written from the paper, for one image. A case is of use if the run goes back to its best point from
another one at least once; the script asserts it.

python test/golden/apgd-trace.py
"""

import json
import math
from pathlib import Path

import torch

OUT = Path(__file__).parent / "apgd-trace.json"
PIXELS, HIDDEN, CLASSES, STEPS = 9, 8, 4, 20
torch.set_default_dtype(torch.float64)
torch.manual_seed(11)
W1 = 3 * torch.randn(HIDDEN, PIXELS)
B1 = torch.randn(HIDDEN)
W2 = torch.randn(CLASSES, HIDDEN)


def loss_of(x, label):
    x = x.detach().requires_grad_()
    logits = W2 @ torch.tanh(W1 @ x + B1)
    value = torch.nn.functional.cross_entropy(logits[None], torch.tensor([label]))
    return value.item(), torch.autograd.grad(value, x)[0]


def project(z, x, eps, norm):
    if norm == "linf":
        return torch.minimum(torch.maximum(z, x - eps), x + eps).clamp(0, 1)
    d = z - x
    return (x + d * min(1.0, eps / max(d.norm().item(), 1e-300))).clamp(0, 1)


def checkpoints(steps):
    p = [0, 22]  # in hundredths
    while p[-1] + max(p[-1] - p[-2] - 3, 6) <= 100:
        p.append(p[-1] + max(p[-1] - p[-2] - 3, 6))
    return {math.ceil(share * steps / 100) for share in p[1:]}


def apgd(x, label, eps, norm, noise):
    start = eps * noise if norm == "linf" else eps * noise / noise.norm()
    at = project(x + start, x, eps, norm)
    value, gradient = loss_of(at, label)
    trace = [{"x": at.tolist(), "loss": value}]
    best = (at, value, gradient)
    eta, before, rises, last, returns = 2 * eps, at, 0, 0, 0
    eta_then, best_then = eta, value
    marks = checkpoints(STEPS)
    for k in range(STEPS):
        direction = gradient.sign() if norm == "linf" else gradient / gradient.norm()
        z = project(at + eta * direction, x, eps, norm)
        share = 0.75 if k > 0 else 1.0
        new = project(at + share * (z - at) + (1 - share) * (at - before), x, eps, norm)
        before, at, old = at, new, value
        value, gradient = loss_of(at, label)
        trace.append({"x": at.tolist(), "loss": value})
        rises += value > old
        if value > best[1]:
            best = (at, value, gradient)
        if k + 1 not in marks:
            continue
        halve = rises < 0.75 * (k + 1 - last) or (eta_then == eta and best_then == best[1])
        eta_then, best_then = eta, best[1]
        if halve:
            eta /= 2
            returns += best[0] is not at
            at, value, gradient = best
        rises, last = 0, k + 1
    assert returns > 0, "the run never goes back to its best point"
    return trace


def main():
    cases = []
    for norm, eps in (("linf", 0.2), ("linf", 0.6), ("l2", 0.5), ("l2", 1.5)):
        x = 0.2 + 0.6 * torch.rand(PIXELS)
        uniform = (torch.rand(PIXELS) * 2**32).floor().add(0.5) / 2**32
        noise = 2 * uniform - 1 if norm == "linf" else torch.randn(PIXELS)
        label = int((W2 @ torch.tanh(W1 @ x + B1)).argmax())
        trace = apgd(x, label, eps, norm, noise)
        cases.append({"norm": norm, "eps": eps, "label": label, "x": x.tolist(), "noise": noise.tolist(), "trace": trace})
    net = {"w1": W1.tolist(), "b1": B1.tolist(), "w2": W2.tolist()}
    OUT.write_text(json.dumps({"steps": STEPS, "net": net, "cases": cases}) + "\n")


main()
