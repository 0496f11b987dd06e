"""Trains the CIFAR-10 model: a small EDM denoiser (ddpm++), with or without a class.

    python3 train.py DATA --out runs/multi-head --multi-head                     # all classes from one network run
    python3 train.py DATA --out runs/cifar --images 600000                       # class-conditional, denoising only
    python3 train.py DATA --out runs/tuned --init runs/cifar --negatives 3 ...   # also learns to tell classes apart

The loss is EDM's: lambda(sigma) mean (D(x + sigma n; sigma, c) - x)^2 with ln sigma ~ N(p_mean, p_std^2). For one image
in ten the class is left out (a zero label). With --negatives, the same noised image is also denoised given some other
classes, those it is most often mistaken for, and the cross-entropy of softmax(-lambda(sigma) error scale(sigma)) is added
to the loss. With --multi-head, the network has no class input. It makes one prediction per class and one unconditional
prediction, and the cross-entropy is over all classes.

DATA is a folder of CIFAR-10's binary batches, gzipped or not. The last --held-out training images are never trained on,
and the test batch is not read. A run that was stopped resumes from its checkpoint if it is started with the same --out.
"""

import argparse
import gzip
import json
import math
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from edm import EDMPrecond, save as save_folder

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BINS = 24  # the scale of errors is learnt per bin of ln sigma in -4.5..1.5


def load_batch(path):
    """Reads the images [n, 3, 32, 32] (uint8) and labels [n] of a binary batch, gzipped or not."""
    path = Path(path)
    packed = path.with_name(path.name + ".gz")
    data = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    records = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    return torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(records[:, 0].astype(np.int64))


def load_train(folder):
    parts = [load_batch(Path(folder) / f"data_batch_{i}.bin") for i in range(1, 6)]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def augment(x0, generator, shift):
    """Flips half of the images [n, 3, 32, 32] and shifts all of them by up to `shift` pixels; edges are reflected."""
    n = len(x0)
    flip = torch.rand(n, generator=generator) < 0.5
    x0 = torch.where(flip[:, None, None, None], x0.flip(3), x0)
    if shift == 0:
        return x0
    x0 = F.pad(x0, (shift,) * 4, mode="reflect")
    at = torch.randint(0, 2 * shift + 1, (2, n), generator=generator).tolist()
    return torch.stack([image[:, y : y + 32, x : x + 32] for image, x, y in zip(x0, *at)])


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="folder of CIFAR-10's binary batches")
    p.add_argument("--out", required=True)
    p.add_argument("--init", help="an earlier --out; training starts from its averaged weights")
    p.add_argument("--images", type=int, default=600_000)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--ema", type=float, default=0.999)
    p.add_argument("--p-mean", type=float, default=-1.2)
    p.add_argument("--p-std", type=float, default=1.2)
    p.add_argument("--multi-head", action="store_true")
    p.add_argument("--negatives", type=int, default=0, help="number of other classes that each image is compared with")
    p.add_argument("--denoising", type=float, default=1.0, help="weight of EDM's loss relative to the cross-entropy")
    p.add_argument("--channels", type=int, default=16)
    p.add_argument("--mult", default="1,2,4")
    p.add_argument("--shift", type=int, default=2)
    p.add_argument("--held-out", type=int, default=2000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return p.parse_args()


def main():
    args = options()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    images, labels = (part[: -args.held_out] for part in load_train(args.data))
    config = dict(
        img_resolution=32, img_channels=3, label_dim=len(CLASSES), sigma_data=0.5, model_type="SongUNet",
        model_channels=args.channels, channel_mult=[int(m) for m in args.mult.split(",")], channel_mult_emb=8,
        num_blocks=1, attn_resolutions=[8], dropout=0.0, label_dropout=0.1,
    )
    if args.multi_head:
        config.update(label_dim=0, label_dropout=0.0, heads=len(CLASSES) + 1)
    # The network stays in evaluation mode, so it drops no labels. Labels are dropped below, per image.
    model = EDMPrecond(**config).eval()
    if args.init:
        model.load_state_dict(load_file(Path(args.init) / "ema.safetensors"))
    model = model.to(args.device, memory_format=torch.channels_last)
    log_scale = torch.full((BINS,), math.log(100.0), requires_grad=True)
    optimizer = torch.optim.AdamW(
        [dict(params=model.parameters(), lr=args.lr), dict(params=[log_scale], lr=2e-2, weight_decay=0)],
        betas=(0.9, 0.99), weight_decay=0.01,
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    ema = {name: w.detach().clone() for name, w in model.state_dict().items()}
    confusion = torch.full((len(CLASSES), len(CLASSES)), 0.3)
    step = 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=args.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema, step, confusion = state["ema"], state["step"], state["confusion"].cpu()
        with torch.no_grad():
            log_scale.copy_(state["log_scale"])

    def errors(xs, sigma, onehot, x0):
        with torch.autocast(args.device, torch.bfloat16):
            denoised = model(xs, sigma, onehot)
        weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
        if args.multi_head:
            weight, x0 = weight[:, None], x0[:, None]
        return weight * (denoised.float() - x0).square().mean((-3, -2, -1))

    errors = torch.compile(errors)

    def save():
        state = dict(model=model.state_dict(), ema=ema, step=step, confusion=confusion, optimizer=optimizer.state_dict(), log_scale=log_scale.detach())
        torch.save(state, out / "checkpoint.tmp")
        (out / "checkpoint.tmp").rename(checkpoint)
        from safetensors.torch import save_file

        save_file({name: w.contiguous() for name, w in ema.items()}, out / "ema.safetensors")
        save_folder(ema, dict(config, id2label={str(i): name for i, name in enumerate(CLASSES)}), out / "export")

    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    log, seen, started, shown = open(out / "log.txt", "a"), step * args.batch, time.time(), torch.zeros(4)
    first, n = seen, args.batch
    while seen < args.images and not stop:
        g = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        place = torch.arange(seen, seen + n)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed + 77 + int(place[0]) // len(images)))
        pick = order[place % len(images)]
        y, x0 = labels[pick], augment(images[pick] / 127.5 - 1, g, args.shift)
        ln_sigma = args.p_mean + args.p_std * torch.randn(n, generator=g)
        sigma = ln_sigma.exp()
        bins = ((ln_sigma + 4.5) * (BINS / 6)).long().clamp(0, BINS - 1)
        xs = x0 + sigma[:, None, None, None] * torch.randn(x0.shape, generator=g)
        if args.multi_head:
            e = errors(*(v.to(args.device) for v in (xs, sigma)), None, x0.to(args.device)).cpu()
            own = e.gather(1, y[:, None])[:, 0]
            logits = -e[:, : len(CLASSES)] * log_scale[bins].exp()[:, None]
            entropy = F.cross_entropy(logits, y)
            loss = entropy + args.denoising * (own.mean() + e[:, len(CLASSES)].mean())
            right = (logits.argmax(1) == y).float().mean()
            e = own
        elif args.negatives == 0:
            onehot = F.one_hot(y, len(CLASSES)).float() * (torch.rand(n, 1, generator=g) >= 0.1)
            e = errors(*(v.to(args.device) for v in (xs, sigma, onehot, x0)))
            loss, entropy, right = e.mean(), torch.zeros(()), torch.zeros(())
        else:
            likely = confusion[y] + 0.03
            likely[torch.arange(n), y] = 0
            c = torch.cat([y[:, None], torch.multinomial(likely, args.negatives, generator=g)], 1)
            null = n // 8

            def rows(v):
                return torch.cat([v.repeat_interleave(c.shape[1], 0), v[:null]]).to(args.device)

            onehot = torch.cat([F.one_hot(c.flatten(), len(CLASSES)).float(), torch.zeros(null, len(CLASSES))]).to(args.device)
            e = errors(rows(xs), rows(sigma), onehot, rows(x0)).cpu()
            of_classes = e[: c.numel()].view(c.shape)
            logits = -of_classes * log_scale[bins].exp()[:, None]
            entropy = F.cross_entropy(logits, torch.zeros_like(y))
            loss = entropy + args.denoising * (of_classes[:, 0].mean() + e[c.numel() :].mean() / 8)
            right = (logits.argmax(1) == 0).float().mean()
            with torch.no_grad():
                p = logits.softmax(1)
                for j in range(1, c.shape[1]):
                    confusion.index_put_((y, c[:, j]), confusion[y, c[:, j]] * 0.99 + 0.01 * p[:, j])
            e = of_classes[:, 0]
        loss.backward()
        share = min(1.0, (seen + n) / 20_000) * 0.5 * (1 + math.cos(math.pi * seen / args.images))
        for group, peak in zip(optimizer.param_groups, peaks):
            group["lr"] = peak * share
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, seen = step + 1, seen + n
        with torch.no_grad():
            decay = min(args.ema, (1 + step) / (10 + step))
            for name, w in model.state_dict().items():
                ema[name].lerp_(w, 1 - decay)
            shown += torch.tensor([e.mean().item(), entropy.item(), right.item(), 1.0])
        if step % 100 == 0:
            s = shown / shown[3]
            speed = (seen - first) / (time.time() - started)
            print(f"images {seen} loss {s[0]:.4f} cross-entropy {s[1]:.4f} right {s[2]:.3f} {speed:.0f} images/s", file=log, flush=True)
            shown.zero_()
        if seen // 20_000 != (seen - n) // 20_000 or seen >= args.images or stop:
            save()


if __name__ == "__main__":
    main()
