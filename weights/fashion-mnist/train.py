"""Trains the shipped Fashion-MNIST model: a small class-conditional noise predictor.

    python3 train.py /usr/share/datasets/fashion-mnist --out runs/fmnist

Only denoising is trained: the loss is E |eps - eps_hat(x_t, t, c)|^2, and for one image in ten the class is replaced by
the null class (10). The last --held-out images of the train split are never trained on; calibrate.py chooses levels,
weights and the temperature on them. The test split is not read here.

The schedule counts images, not seconds, and every step draws from a generator seeded by (seed, step). A run that was
stopped or killed therefore resumes from its checkpoint if it is started with the same --out.
"""

import argparse
import gzip
import json
import signal
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from safetensors.torch import save_file

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
NULL_CLASS = 10
LEVELS = 1000
BINS = 40  # the running loss is kept per bin of LEVELS / BINS noise levels


def read_idx(path):
    """Reads an IDX file (gzipped or not) as a uint8 array [n, ...]."""
    path = Path(path)
    packed = path.with_name(path.name + ".gz")
    data = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    rank = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_split(folder, split):
    """Reads the images [n, 1, 28, 28] (uint8) and labels [n] of the split "train" or "t10k"."""
    images = read_idx(Path(folder) / f"{split}-images-idx3-ubyte")
    labels = read_idx(Path(folder) / f"{split}-labels-idx1-ubyte")
    return torch.from_numpy(images.copy())[:, None], torch.from_numpy(labels.astype(np.int64))


def make_model(channels):
    """Returns a network with few channels at 28x28, where they are expensive, most of the work at 14x14 and 7x7, and
    attention in the middle."""
    return UNet2DModel(
        sample_size=28, in_channels=1, out_channels=1, block_out_channels=channels, layers_per_block=1,
        down_block_types=["DownBlock2D"] * 3, up_block_types=["UpBlock2D"] * 3,
        attention_head_dim=16, norm_num_groups=8, resnet_time_scale_shift="scale_shift",
        num_class_embeds=11, time_embedding_dim=128,
    )


def draw_levels(n, concentrated, generator):
    """Draws noise levels [n]: most of them from 20..719, which tell classes apart, the rest from all of 0..999."""
    everywhere = torch.randint(0, LEVELS, (n,), generator=generator)
    useful = torch.randint(20, 720, (n,), generator=generator)
    return torch.where(torch.rand(n, generator=generator) < concentrated, useful, everywhere)


def orthogonalise(g):
    """Returns approximately the semi-orthogonal matrix nearest to g [rows, columns] (five quintic Newton-Schulz steps)."""
    x = g.bfloat16() if g.size(0) <= g.size(1) else g.bfloat16().T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x if g.size(0) <= g.size(1) else x.T).float()


class Muon(torch.optim.Optimizer):
    """Momentum with an orthogonalised update per weight matrix (convolutions as [out, in*9]), scaled to the size of AdamW's
    updates."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(m, group["momentum"]).flatten(1))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.view_as(p), alpha=-0.2 * max(update.shape) ** 0.5 * group["lr"])


def make_optimizers(model, kind, lr):
    """Returns Muon for the hidden weight matrices and AdamW for the rest, or AdamW for everything."""
    edge = ("conv_in", "conv_out", "time_embedding", "class_embedding")
    hidden = [p for name, p in model.named_parameters() if p.ndim >= 2 and not name.startswith(edge)]
    if kind == "adamw":
        hidden = []
    rest = [p for p in model.parameters() if not any(p is q for q in hidden)]
    adamw = torch.optim.AdamW(rest, lr, betas=(0.9, 0.99), weight_decay=0.01)
    return [adamw] + ([Muon(hidden, lr)] if hidden else [])


def rate(images, args):
    """Returns the learning rate as a share of its peak. It warms up, stays flat, then falls linearly to zero over the last
    share --decay of the images."""
    left = (args.images - images) / (args.decay * args.images)
    return max(0.0, min(1.0, images / args.warmup, left))


def export(weights, config, folder):
    """Writes a diffusers DDPMPipeline folder with float16 weights."""
    folder = Path(folder)
    for part in ("unet", "scheduler"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    half = {name: w.half().contiguous() for name, w in weights.items()}
    save_file(half, folder / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    (folder / "unet" / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    DDPMScheduler(num_train_timesteps=LEVELS).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"],
        "id2label": {str(i): name for i, name in enumerate(CLASSES)},
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="folder of the four IDX files")
    p.add_argument("--out", default="runs/fmnist", help="folder for the checkpoint, the log and the exports")
    p.add_argument("--images", type=int, default=650_000, help="total number of images to train on; sets the schedule")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    p.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    p.add_argument("--warmup", type=int, default=20_000, help="images of linear warm-up")
    p.add_argument("--decay", type=float, default=0.4, help="share of the images, at the end, over which the rate falls to 0")
    p.add_argument("--ema", type=float, default=0.999, help="decay per step of the averaged weights, which are exported")
    p.add_argument("--concentrated", type=float, default=0.8, help="share of the noise levels that is drawn from 20..719")
    p.add_argument("--balance", type=float, default=0.75, help="a level's loss is divided by its running mean to this power")
    p.add_argument("--drop-class", type=float, default=0.1)
    p.add_argument("--channels", default="16,32,80")
    p.add_argument("--init", help="diffusers folder to start from (weights and shape), instead of random weights")
    p.add_argument("--held-out", type=int, default=4000, help="images at the end of the train split that are not trained on")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--no-compile", action="store_true")
    p.add_argument("--export-every", type=int, default=50_000, help="images between exports and checkpoints")
    return p.parse_args()


def main():
    args = options()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)

    images, labels = load_split(args.data, "train")
    images, labels = images[: -args.held_out], labels[: -args.held_out]
    alpha_bar = DDPMScheduler(num_train_timesteps=LEVELS).alphas_cumprod.to(args.device)

    if args.init:
        model = UNet2DModel.from_pretrained(Path(args.init) / "unet", torch_dtype=torch.float32).train()
    else:
        model = make_model([int(c) for c in args.channels.split(",")])
    for module in model.modules():
        if isinstance(module, Attention):  # the bf16 backward pass of fused attention is slow on CPUs
            module.set_processor(AttnProcessor())
    config = {key: value for key, value in json.loads(model.to_json_string()).items() if key != "_name_or_path"}
    model = model.to(args.device, memory_format=torch.channels_last)
    ema = {name: w.detach().clone() for name, w in model.state_dict().items()}
    optimizers = make_optimizers(model, args.optimizer, args.lr)
    mean_loss = torch.ones(BINS)
    step = 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=args.device, weights_only=True)
        model.load_state_dict(state["model"])
        ema, step, mean_loss = state["ema"], state["step"], state["mean_loss"].cpu()
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)

    def per_image_loss(xt, t, c, eps):
        with torch.autocast(args.device, torch.bfloat16):
            out = model(xt, t, class_labels=c).sample
        return (out.float() - eps).square().mean((1, 2, 3))

    if not args.no_compile:
        per_image_loss = torch.compile(per_image_loss)

    def save():
        state = dict(model=model.state_dict(), ema=ema, step=step, mean_loss=mean_loss, optimizers=[o.state_dict() for o in optimizers])
        torch.save(state, out / "checkpoint.tmp")
        (out / "checkpoint.tmp").rename(checkpoint)
        export(ema, config, out / "export")

    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))  # finish the step, write a checkpoint, and exit
    log, seen, started, shown = open(out / "log.txt", "a"), step * args.batch, time.time(), torch.zeros(2)
    first = seen
    while seen < args.images:
        g = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        # Each epoch is a fixed permutation, so that every image is seen equally often.
        place = torch.arange(seen, seen + args.batch)
        epoch = int(place[0]) // len(images)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed + epoch))
        pick = order[place % len(images)]
        t = draw_levels(args.batch, args.concentrated, g)
        c = torch.where(torch.rand(args.batch, generator=g) < args.drop_class, NULL_CLASS, labels[pick])
        eps = torch.randn(args.batch, 1, 28, 28, generator=g)
        weight = mean_loss[t * BINS // LEVELS] ** -args.balance

        x0, td, eps = images[pick].to(args.device) / 127.5 - 1, t.to(args.device), eps.to(args.device)
        a = alpha_bar[td].view(-1, 1, 1, 1)
        loss = per_image_loss(a.sqrt() * x0 + (1 - a).sqrt() * eps, td, c.to(args.device), eps)
        (loss * (weight / weight.mean()).to(args.device)).mean().backward()
        share = rate(seen, args)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * share
            optimizer.step()
            optimizer.zero_grad()

        step, seen = step + 1, seen + args.batch
        with torch.no_grad():
            decay = min(args.ema, (1 + step) / (10 + step))
            for name, w in model.state_dict().items():
                ema[name].lerp_(w, 1 - decay)
            loss = loss.detach().cpu()
            for b, l in zip((t * BINS // LEVELS).tolist(), loss.tolist()):
                mean_loss[b] += 0.01 * (l - mean_loss[b])
            shown += torch.tensor([loss.mean(), 1.0])
        if step % 100 == 0:
            useful = mean_loss[1:28].mean()
            speed = (seen - first) / (time.time() - started)
            print(f"images {seen} loss {shown[0] / shown[1]:.5f} levels 25..699 {useful:.5f} lr {args.lr * share:.2e} {speed:.0f} images/s", file=log, flush=True)
            shown.zero_()
        if seen // args.export_every != (seen - args.batch) // args.export_every or seen >= args.images:
            save()
        if stop:
            save()
            break


if __name__ == "__main__":
    main()
