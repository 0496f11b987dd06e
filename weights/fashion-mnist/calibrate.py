"""Chooses how a class-conditional or multi-head model classifies (card.json), on held-out training images.

    python3 calibrate.py /usr/share/datasets/fashion-mnist MODEL --images 3000      # writes MODEL/card.json

card.json holds the noise levels in visiting order, a weight for each, the temperature, and kappa, the noise-to-signal
scale of error gaps by which the sequential strategy decides. The posterior is softmax(-weighted mean error / temperature).
The error is the mean of (eps - eps_hat)^2, with the same noise for all classes at a level. ../levels.py makes the choice
on the held-out images: the end of the train split, which train.py leaves out.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel

from train import load_split

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from levels import choose  # noqa: E402

CLASSES = 10


@torch.inference_mode()
def measure(model, alpha_bar, images, first, levels, seed, device, batch=40):
    """Returns the errors [n, classes, levels] of uint8 images [n, 1, 28, 28]. The noise of image i is seeded by
    (seed, first + i)."""
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
            if model.config.num_class_embeds is None:  # one head per class
                guess = model(xt[:, k], t[k]).sample[:, :CLASSES]
            else:
                guess = model(xt[:, k].repeat_interleave(CLASSES, 0), t[k].expand(len(c)), class_labels=c).sample
            error = (guess.view(-1, CLASSES, 28, 28) - eps[:, k]).square().mean((2, 3))
            out[i : i + batch, :, k] = error.cpu()
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="folder of the four IDX files")
    p.add_argument("model", help="diffusers folder; card.json is written there")
    p.add_argument("--levels", default="15:720:30", help="start:end:step or a list: the noise levels to weight and order")
    p.add_argument("--held-out", type=int, default=4000, help="as in train.py")
    p.add_argument("--images", type=int, default=3000, help="held-out images to fit on")
    p.add_argument("--skip", type=int, default=0, help="number of held-out images to skip first")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--dump", help="also write the errors [image][class][level] to DUMP.f32 and DUMP.npy and the labels to DUMP.u8")
    p.add_argument("--no-card", action="store_true", help="print only")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = p.parse_args()

    folder = Path(args.model)
    model = UNet2DModel.from_pretrained(folder, subfolder="unet").float().eval().to(args.device)
    alpha_bar = DDPMScheduler.from_pretrained(folder, subfolder="scheduler").alphas_cumprod.to(args.device)
    levels = list(range(*map(int, args.levels.split(":")))) if ":" in args.levels else sorted(map(int, args.levels.split(",")))
    images, labels = load_split(args.data, "train")
    first = len(images) - args.held_out + args.skip
    images, labels = images[first : first + args.images], labels[first : first + args.images]

    start = time.time()
    errors = measure(model, alpha_bar, images, first, levels, args.seed, args.device)
    print(f"{errors.numel()} evaluations, {(time.time() - start) * 1e3 / errors.numel():.3f} ms each, levels {levels}")
    if args.dump:
        errors.numpy().tofile(args.dump + ".f32")
        np.save(args.dump + ".npy", errors.numpy())
        labels.numpy().astype(np.uint8).tofile(args.dump + ".u8")

    order, weights, temperature, kappa = choose(errors, labels)
    card = {
        "timesteps": [levels[k] for k in order],
        "weights": [round(weights[k].item(), 4) for k in order],
        "temperature": float(f"{temperature:.4g}"),
        "kappa": float(f"{kappa:.3g}"),
        "loss": "l2",
    }
    print(json.dumps(card))
    if not args.no_card:
        (folder / "card.json").write_text(json.dumps(card) + "\n")


if __name__ == "__main__":
    main()
