"""How fast is the published algorithm in PyTorch? Our own times are compared with it on the same machine.

    python3 bench/reference.py --model weights/fashion-mnist --images 50 --threads 2 --json out.json
    python3 bench/reference.py --model weights/fashion-mnist --evaluation-only

Diffusion Classifier (Li et al., 2023) with staged elimination, for class-conditional UNet2DModels. Every stage
evaluates the new levels of its own grid for the remaining classes, and keeps the classes with the smallest mean
error over all their levels so far. The k-th level evaluated uses noise k, the same for every class. To be fair to
PyTorch, the (class, level) pairs of a stage share batches, and batch size and memory format are chosen by
measurement. Exits with status 3 if PyTorch or diffusers are missing.
"""

import argparse
import gzip
import json
import statistics
import sys
import time
from pathlib import Path

try:
    import numpy as np
    import torch
    import torch.nn.functional as F
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.utils import logging
except ImportError as error:
    print(f"bench/reference.py needs PyTorch and diffusers (pip install torch diffusers): {error}", file=sys.stderr)
    sys.exit(3)

LOSSES = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="diffusers DDPMPipeline folder")
    p.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder of the IDX test split")
    p.add_argument("--files", nargs="*", help="8-bit grey or RGB images of the model's size, instead of --data")
    p.add_argument("--start", type=int, default=0, help="first image of the test split")
    p.add_argument("--images", type=int, default=20)
    p.add_argument("--n-samples", default="50,500")
    p.add_argument("--to-keep", default="5,1")
    p.add_argument("--loss", choices=list(LOSSES), default="l2")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=None)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--batches", default="20,50,100,250,500", help="batch sizes to try")
    p.add_argument("--compile", action="store_true", help="torch.compile")
    p.add_argument("--bf16", action="store_true", help="bfloat16 autocast (costs accuracy: errors of classes differ by little)")
    p.add_argument("--evaluation-only", action="store_true", help="only time one evaluation of the network")
    p.add_argument("--json", help="write the figures here")
    return p.parse_args()


def read_idx(path):
    packed = path.with_name(path.name + ".gz")
    data = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    rank = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_images(args):
    """Returns x0 [n, c, h, w] in [-1, 1] and labels [n]; None instead of labels if the files have none."""
    if args.files:
        from PIL import Image

        arrays = [np.asarray(Image.open(f)) for f in args.files[: args.images]]
        pixels = np.stack([a[None] if a.ndim == 2 else a.transpose(2, 0, 1) for a in arrays])
        labels = None
    else:
        rows = slice(args.start, args.start + args.images)
        pixels = read_idx(Path(args.data) / "t10k-images-idx3-ubyte")[rows][:, None]
        labels = read_idx(Path(args.data) / "t10k-labels-idx1-ubyte")[rows].tolist()
    return torch.from_numpy(pixels.astype(np.float32)) / 127.5 - 1, labels


class Network:
    """eps_hat of a batch, with the batch size and memory format that were fastest."""

    def __init__(self, args):
        self.args = args
        self.model = UNet2DModel.from_pretrained(args.model, subfolder="unet").float().eval().to(args.device)
        self.scheduler = DDPMScheduler.from_pretrained(args.model, subfolder="scheduler")
        self.alpha_bar = self.scheduler.alphas_cumprod.to(args.device)
        self.shape = (self.model.config.in_channels, self.model.config.sample_size, self.model.config.sample_size)
        embeds = self.model.config.num_class_embeds
        names = json.loads((Path(args.model) / "model_index.json").read_text()).get("id2label")
        self.classes = len(names) if names else embeds
        self.trials = []
        forwards = {}
        for memory in (torch.contiguous_format, torch.channels_last):
            self.model = self.model.to(memory_format=memory)
            self.forward = torch.compile(self.model) if args.compile else self.model
            forwards[memory] = self.forward
            for batch in map(int, args.batches.split(",")):
                self.memory, self.batch = memory, batch
                self.trials.append((self.time_evaluation(0.4), memory, batch))
        self.ms, self.memory, self.batch = min(self.trials, key=lambda trial: trial[0])
        self.model.to(memory_format=self.memory)
        self.forward = forwards[self.memory]
        self.ms = min(self.ms, self.time_evaluation(2.0))

    def __call__(self, xt, t, c):
        with torch.autocast(self.args.device, torch.bfloat16, enabled=self.args.bf16):
            out = self.forward(xt.contiguous(memory_format=self.memory), t, class_labels=c).sample.float()
        a = self.alpha_bar[t].view(-1, 1, 1, 1)
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            return a.sqrt() * out + (1 - a).sqrt() * xt
        return (xt - a.sqrt() * out) / (1 - a).sqrt() if kind == "sample" else out

    def time_evaluation(self, seconds):
        """Returns the median milliseconds of one evaluation (one row of a batch)."""
        x, t, c = torch.randn(self.batch, *self.shape), torch.randint(0, 1000, (self.batch,)), torch.arange(self.batch) % self.classes
        x, t, c = x.to(self.args.device), t.to(self.args.device), c.to(self.args.device)
        times = []
        self(x, t, c)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            self(x, t, c).sum().item()
            times.append((time.perf_counter() - start) * 1e3 / self.batch)
        return statistics.median(times)


def classify(network, x0, seed, n_samples, to_keep, loss):
    """Returns the class with the smallest error of x0 [c, h, w], and the number of evaluations."""
    levels, most = len(network.alpha_bar), max(n_samples)
    grid = list(range(levels // most // 2, levels, levels // most))[:most]
    noise = torch.randn(most, *x0.shape, generator=torch.Generator().manual_seed(seed)).to(x0.device)
    alive, order = list(range(network.classes)), []
    total, evaluations = torch.zeros(network.classes, dtype=torch.float64), 0
    for n, keep in zip(n_samples, to_keep):
        stride = len(grid) // n
        seen = set(order)
        fresh = [t for t in grid[stride // 2 :: stride][:n] if t not in seen]
        pairs = [(c, k) for c in alive for k in range(len(order), len(order) + len(fresh))]
        order += fresh
        for i in range(0, len(pairs), network.batch):
            c, k = torch.tensor(pairs[i : i + network.batch], device=x0.device).T
            t = torch.tensor(order, device=x0.device)[k]
            a, eps = network.alpha_bar[t].view(-1, 1, 1, 1), noise[k]
            eps_hat = network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, c)
            error = LOSSES[loss](eps_hat, eps, reduction="none").mean((1, 2, 3))
            total.index_add_(0, c.cpu(), error.double().cpu())
        evaluations += len(pairs)
        # all remaining classes were evaluated at the same levels, so their sums have the same order as their means
        alive = sorted(alive, key=lambda c: total[c].item())[:keep]
    return alive[0], evaluations


@torch.inference_mode()
def main():
    args = options()
    logging.set_verbosity_error()
    if args.threads:
        torch.set_num_threads(args.threads)
    network = Network(args)
    memory = "channels_last" if network.memory is torch.channels_last else "contiguous"
    result = {
        "model": args.model, "torch": torch.__version__, "device": args.device, "threads": torch.get_num_threads(), "compile": args.compile,
        "bf16": args.bf16, "batch": network.batch, "memory": memory, "msPerEvaluation": round(network.ms, 4),
        "trials": [{"memory": str(m).split(".")[-1], "batch": b, "ms": round(ms, 4)} for ms, m, b in network.trials],
    }  # fmt: skip
    if not args.evaluation_only:
        n_samples, to_keep = ([int(v) for v in s.split(",")] for s in (args.n_samples, args.to_keep))
        images, labels = load_images(args)
        start, found, evaluations = time.perf_counter(), [], 0
        for i, x0 in enumerate(images):
            label, spent = classify(network, x0.to(args.device), args.seed + i, n_samples, to_keep, args.loss)
            found.append(label)
            evaluations += spent
        seconds = time.perf_counter() - start
        result |= {
            "algorithm": "staged", "nSamples": n_samples, "toKeep": to_keep, "loss": args.loss, "images": len(images), "labels": found,
            "accuracy": None if labels is None else sum(a == b for a, b in zip(found, labels)) / len(labels),
            "evaluationsPerImage": evaluations / len(images), "seconds": round(seconds, 3), "imagesPerSecond": round(len(images) / seconds, 4),
        }  # fmt: skip
    print(json.dumps({k: v for k, v in result.items() if k not in ("trials", "labels")}, indent=1))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
