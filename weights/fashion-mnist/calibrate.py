"""Chooses how the model classifies (card.json) on held-out train images, and measures it on test images.

    python3 calibrate.py /usr/share/datasets/fashion-mnist MODEL --images 3000      # writes MODEL/card.json
    python3 calibrate.py /usr/share/datasets/fashion-mnist MODEL --test 1000        # accuracy with MODEL/card.json

card.json: the noise levels in visiting order, a weight for each, the temperature, and kappa, by which the
sequential strategy knows how much noise comes with a gap. The posterior is
softmax(-weighted mean error / temperature), error = mean (eps - eps_hat)^2 with one noise for all classes at a
level. Weights and temperature together are a conditional logit, fitted by maximum likelihood on the held-out
images (the end of the train split, which train.py leaves out), shrunk towards equal weights as cross-validation
likes best. The order is greedy: next comes the level that makes the posterior after it best.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel

from train import load_split

CLASSES = 10


@torch.inference_mode()
def measure(model, alpha_bar, images, first, levels, seed, device, batch=40):
    """Errors [n, classes, levels] of uint8 images [n, 1, 28, 28]; image i draws its noise from (seed, first + i)."""
    t = torch.tensor(levels, device=device)
    a = alpha_bar[t].view(1, -1, 1, 1, 1)
    out = torch.empty(len(images), CLASSES, len(levels))
    for i in range(0, len(images), batch):
        x0 = images[i : i + batch].to(device)[:, None] / 127.5 - 1
        seeds = [torch.Generator().manual_seed(seed * 1_000_003 + first + i + j) for j in range(len(x0))]
        eps = torch.stack([torch.randn(len(levels), 1, 28, 28, generator=g) for g in seeds]).to(device)
        xt = a.sqrt() * x0 + (1 - a).sqrt() * eps
        c = torch.arange(CLASSES, device=device).repeat(len(x0))
        for k in range(len(levels)):
            guess = model(xt[:, k].repeat_interleave(CLASSES, 0), t[k].expand(len(c)), class_labels=c).sample
            error = (guess - eps[:, k].repeat_interleave(CLASSES, 0)).square().mean((1, 2, 3))
            out[i : i + batch, :, k] = error.view(-1, CLASSES).cpu()
    return out


def fit(errors, labels, shrink):
    """Weights [levels] >= 0 (not normalised: their sum is 1 / temperature) of softmax(-errors @ weights)."""
    e = errors - errors.mean(1, keepdim=True)
    u = torch.full((e.shape[2],), 7.0, requires_grad=True)
    optimizer = torch.optim.LBFGS([u], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(-(e @ u.exp()), labels) + shrink * (u - u.mean()).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return u.detach().exp()


def score(errors, labels, weights):
    """Accuracy and mean negative log-likelihood."""
    logits = -((errors - errors.mean(1, keepdim=True)) @ weights)
    return (logits.argmax(1) == labels).float().mean().item(), F.cross_entropy(logits, labels).item()


def cross_validated(errors, labels, shrink, folds=5):
    """Mean accuracy and likelihood over folds that the weights were not fitted on."""
    fold = torch.arange(len(labels)) % folds
    results = [score(errors[fold == f], labels[fold == f], fit(errors[fold != f], labels[fold != f], shrink)) for f in range(folds)]
    return tuple(np.mean(results, axis=0))


def greedy_order(errors, labels, weights):
    """Indices of levels; each prefix (at its own best temperature) has as small a loss as one more level can make it."""
    e = (errors - errors.mean(1, keepdim=True)) * weights
    order, total = [], torch.zeros(e.shape[:2])
    while len(order) < e.shape[2]:

        def loss(k):
            z = -(total + e[:, :, k])
            return min(F.cross_entropy(z * s, labels).item() for s in (0.5, 1.0, 1.5, 2.0, 3.0, 5.0))

        best = min((k for k in range(e.shape[2]) if k not in order), key=loss)
        order.append(best)
        total += e[:, :, best]
    return order


def noise_of_gaps(errors, labels, weights):
    """kappa: variance / mean over levels of the gap between a wrong and the right class, over all such pairs."""
    e = errors * (weights / weights.mean())
    gaps = e - e[torch.arange(len(labels)), labels][:, None]
    wrong = torch.arange(e.shape[1]) != labels[:, None]
    return (gaps.var(2)[wrong].mean() / gaps.mean(2)[wrong].mean()).item()


def wilson(hits, n, z=1.96):
    p, middle = hits / n, hits / n + z * z / (2 * n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data")
    p.add_argument("model", help="diffusers folder; card.json is written there")
    p.add_argument("--levels", default="15:720:30", help="start:end:step or a list; the grid to weigh and order")
    p.add_argument("--held-out", type=int, default=4000, help="as in train.py")
    p.add_argument("--images", type=int, default=3000, help="held-out images to fit on")
    p.add_argument("--skip", type=int, default=0, help="held-out images left out before them")
    p.add_argument("--test", type=int, default=0, help="measure accuracy on that many test images instead")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--dump", help="also write errors [image][class][level] to NAME.f32 and labels to NAME.u8")
    p.add_argument("--no-card", action="store_true", help="print only")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = p.parse_args()

    folder = Path(args.model)
    model = UNet2DModel.from_pretrained(folder, subfolder="unet").float().eval().to(args.device)
    alpha_bar = DDPMScheduler.from_pretrained(folder, subfolder="scheduler").alphas_cumprod.to(args.device)
    card = json.loads((folder / "card.json").read_text()) if args.test else None
    if card:
        levels = card["timesteps"]
    else:
        levels = list(range(*map(int, args.levels.split(":")))) if ":" in args.levels else sorted(map(int, args.levels.split(",")))
    images, labels = load_split(args.data, "t10k" if args.test else "train")
    first = 0 if args.test else len(images) - args.held_out + args.skip
    rows = slice(first, first + (args.test or args.images))
    images, labels = images[rows], labels[rows]

    start = time.time()
    errors = measure(model, alpha_bar, images, first, levels, args.seed, args.device)
    print(f"{errors.numel()} evaluations, {(time.time() - start) * 1e3 / errors.numel():.3f} ms each, levels {levels}")
    if args.dump:
        errors.numpy().tofile(args.dump + ".f32")
        np.save(args.dump + ".npy", errors.numpy())
        labels.numpy().astype(np.uint8).tofile(args.dump + ".u8")

    if card:
        weights = torch.tensor(card["weights"])
        accuracy, nll = score(errors, labels, weights / weights.sum() / card["temperature"])
        low, high = wilson(round(accuracy * len(labels)), len(labels))
        print(f"test: {accuracy:.4f} of {len(labels)} (95 % {low:.4f}..{high:.4f}), negative log-likelihood {nll:.4f}")
        print(f"equal weights: {(errors.mean(2).argmin(1) == labels).float().mean():.4f}")
        for n in (4, 8, 12, 16, 20):
            prefix = (errors[:, :, :n] @ weights[:n]).argmin(1)
            print(f"first {n} levels: {(prefix == labels).float().mean():.4f}")
        return

    print(f"equal weights: accuracy {(errors.mean(2).argmin(1) == labels).float().mean():.4f}")
    tried = {s: cross_validated(errors, labels, s) for s in (1.0, 0.1, 0.03, 0.01, 0.003, 0.001)}
    for s, (accuracy, nll) in tried.items():
        print(f"shrink {s}: cross-validated accuracy {accuracy:.4f} negative log-likelihood {nll:.4f}")
    weights = fit(errors, labels, min(tried, key=lambda s: tried[s][1]))
    order = greedy_order(errors, labels, weights)
    card = {
        "timesteps": [levels[k] for k in order],
        "weights": [round((weights[k] / weights.mean()).item(), 4) for k in order],
        "temperature": float(f"{1 / weights.sum().item():.4g}"),
        "kappa": float(f"{noise_of_gaps(errors, labels, weights):.3g}"),
        "loss": "l2",
    }
    print(json.dumps(card))
    if not args.no_card:
        (folder / "card.json").write_text(json.dumps(card) + "\n")


if __name__ == "__main__":
    main()
