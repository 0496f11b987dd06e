"""Trains a multi-head Fashion-MNIST model that is robust by itself, by adversarial training of its classifier.

    python3 robust.py /usr/share/datasets/fashion-mnist --init ../fashion-mnist-multi-head --out runs/robust

The classifier has a small, fixed set of noise levels. Its logits are -mean over the levels of scale(level) * error, where
the error of a class is the mean of (eps - eps_hat)^2 of its head. One network run gives the errors of all classes. Every
step first attacks each image by projected gradient descent on exactly these logits, with exact gradients through all
levels; the attacker knows the noise. Then the network learns from the attacked images. The loss is their cross-entropy,
plus --clean times the cross-entropy of the unchanged images, plus --mse times the denoising error of the head of the
image's own class and of the unconditional head (Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial
Attacks").

Attacks of one or two steps, or on one random level, are not enough: the network learns to break the gradient of that
attack only. The log then shows a value of "own attack" far above "held out".

"held out" in the log is the share of --check held-out training images that are right after an attack of 20 steps. It is
computed in float32 with the averaged weights. The test split is not read. A run that was stopped resumes from its
checkpoint if it is started with the same --out.
"""

import argparse
import json
import math
import signal
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel

from train import LEVELS, NULL_CLASS, export, load_split

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from levels import greedy_order, noise_of_gaps  # noqa: E402


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="folder of the four IDX files")
    p.add_argument("--init", required=True, help="diffusers folder of the multi-head model to start from")
    p.add_argument("--out", required=True, help="folder for the checkpoint, the log and the export")
    p.add_argument("--levels", default="20,60,100,140", help="noise levels of the classifier")
    p.add_argument("--eps", type=float, default=0.1, help="radius of the linf ball, for pixels in [0, 1]")
    p.add_argument("--steps", type=int, default=10, help="steps of the attack in training")
    p.add_argument("--images", type=int, default=1_500_000)
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--ramp", type=float, default=0.1, help="share of the images, at the start, over which eps grows to its full size")
    p.add_argument("--clean", type=float, default=0.25, help="weight of the cross-entropy of the unchanged images")
    p.add_argument("--mse", type=float, default=0.3, help="weight of the denoising error")
    p.add_argument("--smoothing", type=float, default=0.05, help="label smoothing")
    p.add_argument("--ema", type=float, default=0.998, help="decay per step of the averaged weights, which are exported")
    p.add_argument("--held-out", type=int, default=4000, help="as in train.py")
    p.add_argument("--check", type=int, default=512, help="number of held-out images that are attacked for the log")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--compile", action="store_true", help="compile the network first, which takes a minute or two and makes steps faster")
    p.add_argument("--precision", choices=["bf16", "f32"], default="bf16", help="precision of the matrix products in training")
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


def augment(x0, generator):
    """Flips half of the images [n, 1, 28, 28] and shifts each by up to one pixel."""
    n = len(x0)
    draw = lambda low, high: torch.randint(low, high, (n,), generator=generator, device=x0.device)  # noqa: E731
    x0 = torch.where(draw(0, 2)[:, None, None, None] == 1, x0.flip(3), x0)
    rows = draw(0, 3)[:, None] + torch.arange(28, device=x0.device)
    columns = draw(0, 3)[:, None] + torch.arange(28, device=x0.device)
    padded = F.pad(x0, (1, 1, 1, 1), value=-1.0)[:, 0]
    return padded[torch.arange(n, device=x0.device)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


class Classifier:
    """The classifier of a network with one head per class: errors and logits at a fixed set of levels."""

    def __init__(self, model, levels, device):
        alpha_bar = DDPMScheduler(num_train_timesteps=LEVELS).alphas_cumprod.to(device)
        self.model, self.device, self.count = model, device, len(levels)
        self.t = torch.tensor(levels, device=device)
        self.a = alpha_bar[self.t].view(-1, 1, 1, 1, 1)
        self.log_scale = torch.full((len(levels),), math.log(200.0), device=device, requires_grad=True)

    def errors(self, x0, eps, precision):
        """Returns the errors [levels, n, heads] of images x0 [n, 1, 28, 28] in [-1, 1] with noise eps [levels, n, 1, 28, 28]."""
        n = x0.shape[0]
        xt = (self.a.sqrt() * x0 + (1 - self.a).sqrt() * eps).flatten(0, 1)
        xt = xt.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            guess = self.model(xt, self.t.repeat_interleave(n)).sample
        return (guess.float() - eps.flatten(0, 1)).square().mean((2, 3)).view(self.count, n, -1)

    def logits(self, errors):
        return -(errors[:, :, :NULL_CLASS] * self.log_scale.exp()[:, None, None]).mean(0)

    def attack(self, x0, y, eps, start, radius, steps, precision):
        """Maximises the cross-entropy by projected gradient ascent in the linf ball of `radius` (in units of [-1, 1]) around
        x0. Returns the attacked images."""
        low, high = (x0 - radius).clamp(min=-1), (x0 + radius).clamp(max=1)
        x = (x0 + radius * start).clamp(-1, 1)
        for _ in range(steps):
            x = x.detach().requires_grad_(True)
            loss = F.cross_entropy(self.logits(self.errors(x, eps, precision)), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            x = torch.minimum(torch.maximum(x.detach() + 2.5 / steps * radius * gradient.sign(), low), high)
        return x.detach()


def graphed(function, *example):
    """Returns the function as one CUDA graph on a GPU, which saves the time between small kernels; otherwise returns it
    unchanged."""
    if not example[0].is_cuda:
        return function
    held = [v.clone() for v in example]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            function(*held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function(*held)

    def replay(*values):
        for place, value in zip(held, values):
            place.copy_(value)
        graph.replay()
        return results

    return replay


@torch.no_grad()
def held_out_errors(classifier, x0, eps):
    """Returns the errors [n, classes, levels], computed in float32."""
    parts = [
        classifier.errors(x0[i : i + 500], eps.expand(-1, len(x0[i : i + 500]), -1, -1, -1), "f32")
        for i in range(0, len(x0), 500)
    ]
    return torch.cat(parts, 1)[:, :, :NULL_CLASS].permute(1, 2, 0)


def card(classifier, x0, y, eps):
    """Returns card.json: the weights that the classifier was trained with, and the order and kappa chosen from its errors."""
    errors = held_out_errors(classifier, x0, eps).cpu()
    scale = classifier.log_scale.detach().exp().cpu()
    order = greedy_order(errors, y.cpu(), scale / len(scale))
    return {
        "timesteps": [classifier.t[k].item() for k in order],
        "weights": [round((scale[k] / scale.mean()).item(), 4) for k in order],
        "temperature": float(f"{1 / scale.mean().item():.4g}"),
        "kappa": float(f"{noise_of_gaps(errors, scale / scale.mean(), order):.3g}"),
        "loss": "l2",
    }


def main():
    args = options()
    out, device, radius = Path(args.out), args.device, 2 * args.eps  # pixels are in [-1, 1] here
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    images, labels = (part.to(device) for part in load_split(args.data, "train"))
    normal = lambda x: x.float() / 127.5 - 1  # noqa: E731
    held_x, held_y = normal(images[-args.held_out :]), labels[-args.held_out :]
    images, labels = images[: -args.held_out], labels[: -args.held_out]

    model = UNet2DModel.from_pretrained(Path(args.init) / "unet", torch_dtype=torch.float32)
    config = {key: value for key, value in json.loads(model.to_json_string()).items() if key != "_name_or_path"}
    model = model.to(device).train().to(memory_format=torch.channels_last)
    averaged = UNet2DModel.from_pretrained(Path(args.init) / "unet", torch_dtype=torch.float32).to(device).eval()
    classifier = Classifier(model, list(map(int, args.levels.split(","))), device)
    judged = Classifier(averaged, list(map(int, args.levels.split(","))), device)
    judged.log_scale = classifier.log_scale
    learnt = [p for p in model.parameters() if p.requires_grad] + [classifier.log_scale]
    groups = [dict(params=learnt[:-1], lr=args.lr, weight_decay=0.01), dict(params=learnt[-1:], lr=2e-2, weight_decay=0.0)]
    if args.compile:
        classifier.errors = torch.compile(classifier.errors)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=device == "cuda")
    peaks = [group["lr"] for group in groups]
    step, seen = 0, 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        step, seen = state["step"], state["seen"]
        with torch.no_grad():
            classifier.log_scale.copy_(state["log_scale"])

    fixed = torch.Generator(device).manual_seed(1)
    known = torch.randn(classifier.count, 1, 1, 28, 28, generator=fixed, device=device)  # the noise with which the log's figures are measured

    def check(count, steps):
        """Returns the shares of the first `count` held-out images that are right without an attack and after it."""
        right = [0, 0]
        for i in range(0, count, 512):
            x, y = held_x[i : i + min(512, count - i)], held_y[i : i + min(512, count - i)]
            eps = known.expand(-1, len(x), -1, -1, -1)
            start = torch.rand(x.shape, generator=fixed, device=device) * 2 - 1
            attacked = judged.attack(x, y, eps, start, radius, steps, "f32")
            with torch.no_grad():
                hits = [judged.logits(judged.errors(v, eps, "f32")).argmax(1) == y for v in (x, attacked)]
            right[0] += hits[0].sum().item()
            right[1] += (hits[0] & hits[1]).sum().item()
        return right[0] / count, right[1] / count

    def gradients(x, attacked, y, eps):
        errors = classifier.errors(attacked, eps, args.precision)
        logits = classifier.logits(errors)
        entropy = F.cross_entropy(logits, y, label_smoothing=args.smoothing)
        own = errors.gather(2, y.expand(classifier.count, -1)[:, :, None]).mean() + errors[:, :, NULL_CLASS].mean()
        clean = classifier.logits(classifier.errors(x, eps, args.precision))
        clean_entropy = F.cross_entropy(clean, y, label_smoothing=args.smoothing)
        found = torch.autograd.grad(entropy + args.clean * clean_entropy + args.mse * own, learnt)
        hits = [(v.argmax(1) == y).float().mean() for v in (clean, logits)]
        return found, torch.stack([entropy.detach(), own.detach() / 2, *hits])

    def draw(step):
        """Returns the images, labels, noise and starting points of the attack for one step."""
        g = torch.Generator(device).manual_seed(args.seed * 1_000_003 + step)
        pick = torch.randint(0, len(images), (args.batch,), generator=g, device=device)
        x = augment(normal(images[pick]), g)
        eps = torch.randn(classifier.count, args.batch, 1, 28, 28, generator=g, device=device)
        return x, labels[pick], eps, torch.rand(x.shape, generator=g, device=device) * 2 - 1

    def save():
        state = dict(
            model=model.state_dict(), averaged=averaged.state_dict(), optimizer=optimizer.state_dict(), step=step,
            seen=seen, log_scale=classifier.log_scale.detach(),
        )
        torch.save(state, out / "checkpoint.tmp")
        (out / "checkpoint.tmp").rename(checkpoint)
        export({name: w.cpu() for name, w in averaged.state_dict().items()}, config, out / "export")
        described = card(judged, held_x[:3000], held_y[:3000], known)
        (out / "export" / "card.json").write_text(json.dumps(described) + "\n")

    log = open(out / "log.txt", "a")

    def say(line):
        print(line, flush=True)
        print(line, file=log, flush=True)

    x, y, eps, start = draw(0)
    ball = torch.tensor(radius, device=device)
    attack = graphed(lambda *v: classifier.attack(*v, args.steps, args.precision), x, y, eps, start, ball)
    learn = graphed(gradients, x, x, y, eps)
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))  # finish the step, write a checkpoint, and exit
    shown, count, since = torch.zeros(4, device=device), 0, time.time()
    while seen < args.images and not stop:
        x, y, eps, start = draw(step)
        ball = torch.tensor(radius * min(1.0, 0.2 + 0.8 * seen / max(1.0, args.ramp * args.images)), device=device)
        found, figures = learn(x, attack(x, y, eps, start, ball), y, eps)
        for p, gradient in zip(learnt, found):
            p.grad = gradient
        torch.nn.utils.clip_grad_norm_(learnt[:-1], 1.0)
        rate = min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * seen / args.images)) + 1e-3
        for group, peak in zip(optimizer.param_groups, peaks):
            group["lr"] = peak * rate
        optimizer.step()
        step, seen, count = step + 1, seen + args.batch, count + 1
        with torch.no_grad():
            decay = min(args.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
        shown = shown + figures
        if count == 100 or seen >= args.images:
            speed = count * args.batch / (time.time() - since)
            clean, robust = check(args.check, 20)
            entropy, error, right, own = (shown / count).tolist()
            say(
                f"images {seen} cross-entropy {entropy:.4f} error {error:.4f} clean {right:.3f} own attack {own:.3f}"
                f" held out: clean {clean:.3f} attacked {robust:.3f} {speed:.0f} images/s"
            )
            shown, count, since = torch.zeros(4, device=device), 0, time.time()
        if seen // 20_000 != (seen - args.batch) // 20_000:
            save()
    save()
    clean, robust = check(args.check, 50)
    say(f"{args.check} held-out images: clean {clean:.4f}, after an attack of 50 steps {robust:.4f}")


if __name__ == "__main__":
    main()
