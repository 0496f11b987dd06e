"""Trains a small residual classifier of Fashion-MNIST, from whose probabilities finetune.py --teacher learns.

    python3 teacher.py /usr/share/datasets/fashion-mnist --out runs/teacher.pt

It is an ordinary classifier from images to logits, without diffusion. It is used in training only and is not shipped. The
last --held-out images of the train split are not trained on. The test split is not read.
"""

import argparse
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

from train import CLASSES, Muon, load_split


class Residual(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, plus the input."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x):
        h = F.relu(self.norm1(x))
        kept = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(h)
        return kept + self.conv2(F.relu(self.norm2(self.conv1(h))))


class Teacher(nn.Module):
    """Computes logits [n, 10] of images [n, 1, 28, 28] in [-1, 1]."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.down = nn.Conv2d(24, 48, 3, stride=2, padding=1, bias=False)
        self.blocks14 = nn.Sequential(Residual(48, 48), Residual(48, 48))
        self.blocks7 = nn.Sequential(Residual(48, 96), Residual(96, 96))
        self.norm_out = nn.BatchNorm2d(96)
        self.out = nn.Linear(192, len(CLASSES))

    def forward(self, x):
        h = self.blocks14(self.down(F.relu(self.norm(self.stem(x)))))
        h = F.relu(self.norm_out(self.blocks7(F.avg_pool2d(h, 2))))
        return self.out(torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1))


def load_teacher(path):
    teacher = Teacher()
    teacher.load_state_dict(torch.load(path, weights_only=True))
    return teacher.eval().requires_grad_(False)


def augment(x):
    """Flips half of the images [n, 1, 28, 28], shifts all of them by up to two pixels, and fills an 8x8 square of half of
    them with noise."""
    n = len(x)
    flip = torch.rand(n) < 0.5
    x = F.pad(torch.where(flip[:, None, None, None], x.flip(3), x), (2,) * 4, value=-1.0)
    dx, dy = torch.randint(0, 5, (2, n))
    side = torch.arange(28)
    rows, columns = (dy[:, None] + side)[:, :, None], (dx[:, None] + side)[:, None, :]
    x = x[torch.arange(n)[:, None, None], 0, rows, columns][:, None]
    top, left = torch.randint(0, 21, (2, n))
    def within(first):
        return (side >= first[:, None]) & (side < first[:, None] + 8)
    square = within(top)[:, :, None] & within(left)[:, None, :] & (torch.rand(n) < 0.5)[:, None, None]
    return torch.where(square[:, None], torch.randn_like(x) * 0.5, x)


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="folder of the four IDX files")
    p.add_argument("--out", required=True, help="file to write the trained weights to")
    p.add_argument("--images", type=int, default=1_200_000)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, default=4e-3)
    p.add_argument("--smoothing", type=float, default=0.05, help="label smoothing")
    p.add_argument("--held-out", type=int, default=4000, help="as in train.py")
    p.add_argument("--seed", type=int, default=1)
    return p.parse_args()


def main():
    args = options()
    torch.manual_seed(args.seed)
    images, labels = load_split(args.data, "train")
    held_out, held_out_labels = images[-args.held_out :], labels[-args.held_out :]
    images, labels = images[: -args.held_out], labels[: -args.held_out]

    model = Teacher().to(memory_format=torch.channels_last)
    hidden = [p for name, p in model.named_parameters() if p.ndim == 4 and not name.startswith("stem")]
    rest = [p for p in model.parameters() if not any(p is q for q in hidden)]
    optimizers = [Muon(hidden, args.lr, weight_decay=0.05), torch.optim.AdamW(rest, args.lr, weight_decay=0.02)]
    ema = {name: w.clone() for name, w in model.state_dict().items()}
    steps, started, order = args.images // args.batch, time.time(), torch.tensor([], dtype=torch.long)

    @torch.compile
    def logits_of(x):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    for step in range(steps):
        if len(order) < args.batch:
            order = torch.randperm(len(images))
        pick, order = order[: args.batch], order[args.batch :]
        x = augment(images[pick] / 127.5 - 1).to(memory_format=torch.channels_last)
        loss = F.cross_entropy(logits_of(x).float(), labels[pick], label_smoothing=args.smoothing)
        loss.backward()
        # The rate warms up, stays flat, then falls linearly to zero over the last 60 % of the steps.
        share = min(1, step / 200, (steps - step) / (0.6 * steps))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * share
            optimizer.step()
            optimizer.zero_grad()
        decay = min(0.998, (1 + step) / (10 + step))
        for name, w in model.state_dict().items():
            ema[name].lerp_(w, 1 - decay) if w.is_floating_point() else ema[name].copy_(w)
        if step % 500 == 499:
            print(f"images {(step + 1) * args.batch} loss {loss.item():.3f} {(step + 1) * args.batch / (time.time() - started):.0f} images/s", flush=True)

    torch.save(ema, args.out)
    teacher = load_teacher(args.out)
    with torch.no_grad():
        right = torch.cat([teacher(part / 127.5 - 1) for part in held_out.split(500)]).argmax(1) == held_out_labels
    print(f"held-out accuracy {right.float().mean():.4f}")


if __name__ == "__main__":
    main()
