"""Fine-tunes a Fashion-MNIST model to tell classes apart, with a denoising loss plus a cross-entropy.

    python3 finetune.py /usr/share/datasets/fashion-mnist --init . --out runs/tuned
    python3 finetune.py /usr/share/datasets/fashion-mnist --init . --out runs/multi-head --multi-head --teacher runs/teacher.pt
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 finetune.py ...      # the same on two cores, one process per core

The model of train.py predicts noise well, but which class explains an image best is left to chance differences between
the errors of the classes. Here, each image is noised once (one level, one noise). Its error is computed
for its own class and for a few others, those it is most often mistaken for. The loss is mse * E|eps - eps_hat|^2 of its own
class plus the cross-entropy of softmax(-error * scale(level)). One image in eight is also denoised without its class.

With --multi-head, the network has no class input. Its last convolution makes one prediction per class and one
unconditional prediction, so that one network run gives the errors of all classes (multi-head diffusion, Chen et al. 2024,
"Robust Classification via a Single Diffusion Model").

With --teacher, the target of the cross-entropy mixes the label with the probabilities that the classifier of teacher.py
gives for the image. These show which images are doubtful and which other classes they resemble (distillation, Hinton et
al. 2015).

A run that was stopped resumes from its checkpoint if it is started with the same --out. The test split is not read.
"""

import argparse
import json
import math
import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor

from teacher import load_teacher
from train import CLASSES, LEVELS, NULL_CLASS, export, load_split, make_optimizers

BINS = 20  # the scale of errors is learnt for bins of LEVELS / BINS levels
NULL_SHARE = 8  # one image in this many is denoised without its class


def multi_head(model):
    """Returns the same network without its class input, with one prediction per class and one unconditional prediction."""
    config = dict(model.config, num_class_embeds=None, out_channels=NULL_CLASS + 1)
    widened = UNet2DModel(**{key: value for key, value in config.items() if not key.startswith("_")})
    weights = {name: w for name, w in model.state_dict().items() if not name.startswith("class_embedding")}
    # The embedding of the null class becomes part of the time embedding. Every head starts as a copy of the one output.
    weights["time_embedding.linear_2.bias"] = weights["time_embedding.linear_2.bias"] + model.class_embedding.weight[NULL_CLASS]
    weights["conv_out.weight"] = weights["conv_out.weight"].repeat(NULL_CLASS + 1, 1, 1, 1)
    weights["conv_out.bias"] = weights["conv_out.bias"].repeat(NULL_CLASS + 1)
    widened.load_state_dict(weights)
    return widened


def augment(x0, flips, generator):
    """Flips a share of the images [n, 1, 28, 28] and shifts all of them by up to one pixel."""
    n = len(x0)
    flip = torch.rand(n, generator=generator) < flips
    x0 = F.pad(torch.where(flip[:, None, None, None], x0.flip(3), x0), (1, 1, 1, 1), value=-1.0)
    dx, dy = torch.randint(0, 3, (2, n), generator=generator).tolist()
    return torch.stack([image[:, y : y + 28, x : x + 28] for image, x, y in zip(x0, dx, dy)])


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="folder of the four IDX files")
    p.add_argument("--init", required=True, help="diffusers folder of the model to start from")
    p.add_argument("--out", required=True, help="folder for the checkpoint, the log and the exports")
    p.add_argument("--multi-head", action="store_true")
    p.add_argument("--images", type=int, default=330_000)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=8e-4)
    p.add_argument("--optimizer", choices=["muon", "adamw"], default="adamw", help="as in train.py")
    p.add_argument("--teacher", help="weights of teacher.py; its probabilities are learnt in addition to the labels")
    p.add_argument("--trust", type=float, default=0.7, help="share of the teacher's probabilities in the target")
    p.add_argument("--negatives", type=int, default=3, help="number of other classes that each image is compared with")
    p.add_argument("--mse", type=float, default=3.0, help="weight of the denoising loss")
    p.add_argument("--levels", default="20:430", help="noise levels first:end")
    p.add_argument("--flips", type=float, default=0.5, help="share of the images that are flipped")
    p.add_argument("--held-out", type=int, default=4000, help="as in train.py")
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


def main():
    args = options()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(args.seed)
    images, labels = (part[: -args.held_out] for part in load_split(args.data, "train"))
    alpha_bar = DDPMScheduler(num_train_timesteps=LEVELS).alphas_cumprod
    first_level, end_level = map(int, args.levels.split(":"))

    model = UNet2DModel.from_pretrained(Path(args.init) / "unet", torch_dtype=torch.float32)
    if args.multi_head and model.config.num_class_embeds is not None:
        model = multi_head(model)
    for module in model.modules():
        if isinstance(module, Attention):  # the bf16 backward pass of fused attention is slow on CPUs
            module.set_processor(AttnProcessor())
    config = {key: value for key, value in json.loads(model.to_json_string()).items() if key != "_name_or_path"}
    model = model.train().to(memory_format=torch.channels_last)

    teacher = load_teacher(args.teacher) if args.teacher else None
    log_scale = torch.full((BINS,), math.log(300.0), requires_grad=True)
    optimizers = make_optimizers(model, args.optimizer, args.lr)
    optimizers[0].add_param_group(dict(params=[log_scale], lr=2e-2, weight_decay=0))
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    learnt = [*model.parameters(), log_scale]
    ema = {name: w.detach().clone() for name, w in model.state_dict().items()}
    confusion = torch.full((len(CLASSES), len(CLASSES)), 0.3)  # running probability that an image of the row's class is taken for the column's
    step = 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        ema, step, confusion = state["ema"], state["step"], state["confusion"]
        with torch.no_grad():
            log_scale.copy_(state["log_scale"])

    def errors(xt, t, c, eps):
        """Returns the errors [n], or [n, heads] of a multi-head model."""
        with torch.autocast("cpu", torch.bfloat16):
            guess = model(xt, t, class_labels=c).sample
        if args.multi_head:
            return (guess.float() - eps).square().mean((2, 3))
        return (guess.float() - eps).square().mean((1, 2, 3))

    errors = torch.compile(errors)

    def save():
        if rank > 0:
            return
        state = dict(model=model.state_dict(), ema=ema, step=step, confusion=confusion, optimizers=[o.state_dict() for o in optimizers], log_scale=log_scale.detach())
        torch.save(state, out / "checkpoint.tmp")
        (out / "checkpoint.tmp").rename(checkpoint)
        export(ema, config, out / "export")

    def of_candidates(xt, t, y, eps, generator):
        """Returns the errors [n, 1 + others] of each image's own class and of other classes, the indices of those classes,
        and the mean error without a class."""
        n = len(y)
        if args.multi_head:
            e = errors(xt, t, None, eps)
            others = (y[:, None] + torch.arange(1, len(CLASSES))) % len(CLASSES)
            return e.gather(1, torch.cat([y[:, None], others], 1)), others, e[: n // NULL_SHARE, NULL_CLASS].mean()
        likely = confusion[y] + 0.03
        likely[torch.arange(n), y] = 0
        others = torch.multinomial(likely, args.negatives, generator=generator)
        c = torch.cat([y[:, None], others], 1)
        # every (image, candidate) pair, then some images once more without a class
        def rows(v):
            return torch.cat([v.repeat_interleave(c.shape[1], 0), v[: n // NULL_SHARE]])
        null = torch.full((n // NULL_SHARE,), NULL_CLASS)
        e = errors(rows(xt), rows(t), torch.cat([c.flatten(), null]), rows(eps))
        return e[: c.numel()].view(c.shape), others, e[c.numel() :].mean()

    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))  # finish the step, write a checkpoint, and exit
    log, seen, started, shown = open(out / "log.txt", "a"), step * args.batch, time.time(), torch.zeros(4)
    first = seen
    while seen < args.images and not stop:
        g = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        place = torch.arange(seen, seen + args.batch)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed + 77 + int(place[0]) // len(images)))
        pick = order[place % len(images)]
        y, x0 = labels[pick], augment(images[pick] / 127.5 - 1, args.flips, g)
        t = torch.randint(first_level, end_level, (args.batch,), generator=g)
        eps = torch.randn(args.batch, 1, 28, 28, generator=g)
        a = alpha_bar[t].view(-1, 1, 1, 1)
        mine = slice(rank * args.batch // ranks, (rank + 1) * args.batch // ranks)
        y, x0, t, eps, a = (v[mine] for v in (y, x0, t, eps, a))
        e, others, null_error = of_candidates(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, y, eps, g)
        logits = -e * log_scale[t * BINS // LEVELS].exp()[:, None]
        target = torch.zeros_like(logits)
        target[:, 0] = 1
        if teacher:
            with torch.no_grad():
                said = teacher(x0).gather(1, torch.cat([y[:, None], others], 1)).softmax(1)
            target.lerp_(said, args.trust)
        entropy = F.cross_entropy(logits, target)
        (entropy + args.mse * (e[:, 0].mean() + null_error / NULL_SHARE)).backward()
        if ranks > 1:  # average the gradients; if one process is told to stop, all stop
            told = torch.cat([p.grad.flatten() for p in learnt] + [torch.tensor([float(len(stop))])])
            dist.all_reduce(told)
            for p, part in zip(learnt, told.split([p.numel() for p in learnt] + [1])):
                p.grad.copy_(part.view_as(p) / ranks)
            if told[-1] > 0:
                stop.append(True)
        share = min(1.0, (seen + args.batch) / 3000) * 0.5 * (1 + math.cos(math.pi * seen / args.images))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rates in zip(optimizers, peaks):
            for group, peak in zip(optimizer.param_groups, rates):
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad()

        step, seen = step + 1, seen + args.batch
        with torch.no_grad():
            decay = min(0.998, (1 + step) / (10 + step))
            for name, w in model.state_dict().items():
                ema[name].lerp_(w, 1 - decay)
            probabilities = logits.softmax(1)
            for j in range(others.shape[1]):
                pair = (y, others[:, j])
                confusion.index_put_(pair, confusion[pair] * 0.99 + 0.01 * probabilities[:, j + 1])
            shown += torch.tensor([entropy.item(), e[:, 0].mean().item(), (logits.argmax(1) == 0).float().mean().item(), 1.0])
        if step % 100 == 0 and rank == 0:
            s = shown / shown[3]
            speed = (seen - first) / (time.time() - started)
            print(f"images {seen} cross-entropy {s[0]:.4f} error {s[1]:.4f} right {s[2]:.3f} {speed:.0f} images/s", file=log, flush=True)
            shown.zero_()
        if seen // 20_000 != (seen - args.batch) // 20_000 or seen >= args.images or stop:
            save()


if __name__ == "__main__":
    main()
