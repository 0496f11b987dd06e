"""Chooses how a multi-head EDM model classifies (card.json), on the training images that train.py holds out.

    python3 calibrate.py CIFAR MODEL --sigmas 0.05,0.1,0.2,0.4    # writes MODEL/card.json

The error of a class is the mean of (D(x + sigma n; sigma, class) - x)^2, with the same noise n for all classes at a
sigma. ../levels.py chooses weights for these errors times EDM's lambda(sigma); card.json gets weights for the errors
themselves.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from edm import EDMPrecond
from train import CLASSES, load_train

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from levels import choose  # noqa: E402


@torch.inference_mode()
def measure(model, images, sigmas, batch=50):
    """Returns the errors [n, classes, sigmas] of uint8 images [n, 3, 32, 32], times lambda(sigma)."""
    out = torch.empty(len(images), len(CLASSES), len(sigmas))
    for i in range(0, len(images), batch):
        x0 = images[i : i + batch] / 127.5 - 1
        g = torch.Generator().manual_seed(1_000_003 + i)
        for k, sigma in enumerate(sigmas):
            s = torch.full((len(x0),), sigma)
            denoised = model(x0 + sigma * torch.randn(x0.shape, generator=g), s)[:, : len(CLASSES)]
            out[i : i + batch, :, k] = weight(sigma) * (denoised - x0[:, None]).square().mean((2, 3, 4))
    return out


def weight(sigma, sd=0.5):
    """Returns EDM's lambda(sigma)."""
    return (sigma**2 + sd**2) / (sigma * sd) ** 2


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="folder of CIFAR-10's binary batches")
    p.add_argument("model", help="folder of config.json and model.safetensors; card.json is written there")
    p.add_argument("--sigmas", default="0.02,0.03,0.05,0.07,0.1,0.14,0.2,0.28,0.4,0.55,0.75,1.0")
    p.add_argument("--held-out", type=int, default=2000, help="as in train.py")
    p.add_argument("--images", type=int, default=2000, help="held-out images to fit on")
    p.add_argument("--no-card", action="store_true", help="print only")
    args = p.parse_args()

    folder = Path(args.model)
    config = json.loads((folder / "config.json").read_text())
    model = EDMPrecond(**{key: value for key, value in config.items() if key not in ("_class_name", "id2label")}).eval()
    state = load_file(folder / "model.safetensors")
    model.load_state_dict({name: w.float() for name, w in state.items()}, strict=False)
    sigmas = [float(sigma) for sigma in args.sigmas.split(",")]
    images, labels = (part[-args.held_out :][: args.images] for part in load_train(args.data))

    order, weights, temperature, kappa = choose(measure(model, images, sigmas), labels)
    own = torch.tensor([weights[k].item() * weight(sigmas[k]) for k in order])  # weights of the errors themselves
    card = {
        "sigmas": [sigmas[k] for k in order],
        "weights": [float(f"{w:.4g}") for w in (own / own.mean()).tolist()],
        # Temperature and kappa are in units of the weighted mean error.
        "temperature": float(f"{temperature / own.mean().item():.4g}"),
        "kappa": float(f"{kappa / own.mean().item():.3g}"),
        "loss": "l2",
    }
    print(json.dumps(card))
    if not args.no_card:
        (folder / "card.json").write_text(json.dumps(card) + "\n")


if __name__ == "__main__":
    main()
