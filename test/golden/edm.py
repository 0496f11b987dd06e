"""Makes edm/NAME.json: EDM networks with random weights, evaluated as in RDC's released classifier, in double precision.

    python3 edm.py

Weights, noises and images are not stored. A linear congruential generator, seeded by their names, makes the same ones here
and in test/graph/edm-folder.ts. RDC's grid is linspace(1e-4, 3, 126) without its last point; the k-th sigma uses noise k.

config, tensors  of the model folder.
image            bytes [h][w][c].
errors           [class][sigma]: the mean of (D(x + sigma n, sigma, class) - x)^2.
logits           minus the sums of the errors with the weights in RDC's code; posterior is their softmax.
gradients        of an error with respect to the image, [c][h][w], each with `sigma` (its index) and `label`.
nobody           errors without a class, given a zero label or from the last head.
uncond           the errors of the network in uncond/, which takes no class.

SongUNet and EDMPrecond are those of weights/cifar-10/edm.py; DhariwalUNet is defined here.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "weights" / "cifar-10"))
import edm  # noqa: E402
from edm import Conv2d, EDMPrecond, GroupNorm, Linear, UNetBlock, positional  # noqa: E402


class DhariwalUNet(nn.Module):
    """ADM's UNet (Dhariwal and Nichol 2021) in EDM's version."""

    def __init__(self, img_resolution, in_channels, out_channels, label_dim=0, augment_dim=0, model_channels=192,
                 channel_mult=(1, 2, 3, 4), channel_mult_emb=4, num_blocks=3, attn_resolutions=(32, 16, 8), dropout=0.10,
                 label_dropout=0.0):
        super().__init__()
        self.model_channels, emb_channels = model_channels, model_channels * channel_mult_emb
        self.map_layer0 = Linear(model_channels, emb_channels)
        self.map_layer1 = Linear(emb_channels, emb_channels)
        self.map_label = Linear(label_dim, emb_channels, bias=False) if label_dim else None
        if augment_dim:
            self.map_augment = Linear(augment_dim, model_channels, bias=False)

        def block(inputs, outputs, resample=None, attention=False):
            return UNetBlock(inputs, outputs, emb_channels, resample, heads=outputs // 64 if attention else 0)

        self.enc, self.dec, skips = nn.ModuleDict(), nn.ModuleDict(), []
        channels = model_channels * channel_mult[0]
        for level, mult in enumerate(channel_mult):
            res = img_resolution >> level
            if level == 0:
                self.enc[f"{res}x{res}_conv"] = Conv2d(in_channels, channels, 3)
            else:
                self.enc[f"{res}x{res}_down"] = block(channels, channels, "down")
            skips.append(channels)
            for i in range(num_blocks):
                self.enc[f"{res}x{res}_block{i}"] = block(channels, model_channels * mult, attention=res in attn_resolutions)
                channels = model_channels * mult
                skips.append(channels)
        for level in reversed(range(len(channel_mult))):
            res = img_resolution >> level
            if level == len(channel_mult) - 1:
                self.dec[f"{res}x{res}_in0"] = block(channels, channels, attention=True)
                self.dec[f"{res}x{res}_in1"] = block(channels, channels)
            else:
                self.dec[f"{res}x{res}_up"] = block(channels, channels, "up")
            for i in range(num_blocks + 1):
                width = model_channels * channel_mult[level]
                self.dec[f"{res}x{res}_block{i}"] = block(channels + skips.pop(), width, attention=res in attn_resolutions)
                channels = width
        self.out_norm = GroupNorm(channels)
        self.out_conv = Conv2d(channels, out_channels, 3)

    def forward(self, x, noise_labels, class_labels=None, augment_labels=None):
        emb = self.map_layer1(F.silu(self.map_layer0(positional(noise_labels, self.model_channels))))
        if self.map_label is not None:
            emb = emb + self.map_label(class_labels)
        emb = F.silu(emb)
        skips = []
        for module in self.enc.values():
            x = module(x, emb) if isinstance(module, UNetBlock) else module(x)
            skips.append(x)
        for module in self.dec.values():
            x = module(x if x.shape[1] == module.in_channels else torch.cat([x, skips.pop()], dim=1), emb)
        return self.out_conv(F.silu(self.out_norm(x)))


edm.EDMPrecond.networks["DhariwalUNet"] = DhariwalUNet

SONG = dict(img_channels=3, model_type="SongUNet", model_channels=8, channel_mult_emb=3, num_blocks=1, dropout=0.13)
CASES = {
    # CIFAR-10's ddpm++ in small: attention in the middle and at 4x4, and augmentation labels that are never used.
    "song": dict(
        config=dict(img_resolution=8, label_dim=3, augment_dim=9, label_dropout=0.1, channel_mult=[2, 3], attn_resolutions=[4],
                    channel_mult_noise=2, use_fp16=True, sigma_min=0, **SONG),
        uncond=dict(img_resolution=8, augment_dim=9, channel_mult=[1, 3], attn_resolutions=[8], **SONG),
    ),
    # Predictions for three classes and an unconditional one from one run.
    "heads": dict(
        config=dict(img_resolution=8, heads=4, channel_mult=[1, 2], attn_resolutions=[4], **SONG),
    ),
    # Two heads at 4x4. None at 8x8, where there are fewer channels than a head needs.
    "dhariwal": dict(
        config=dict(img_resolution=8, img_channels=3, label_dim=4, model_type="DhariwalUNet", model_channels=32, channel_mult=[1, 4],
                    num_blocks=1, attn_resolutions=[8, 4], sigma_data=0.6),
    ),
}  # fmt: skip


def uniform(name, count):
    """Returns `count` numbers in [0, 1) from the generator that is seeded by the name (FNV-1a)."""
    state = 2166136261
    for byte in name.encode():
        state = (state ^ byte) * 16777619 % 2**32
    out = np.empty(count)
    for i in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        out[i] = state / 2**32
    return out


def weight(name, shape):
    """Returns random weights: matrices and kernels of variance 1 / fan in, biases within 0.3 of 0, and weights of norms
    within 0.3 of 1."""
    spread = math.sqrt(3 / math.prod(shape[1:])) if len(shape) > 1 else 0.3
    middle = 1 if len(shape) == 1 and name.endswith("weight") else 0
    values = middle + spread * (2 * uniform(name, math.prod(shape)) - 1)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def network(config, prefix=""):
    """Returns the network of a configuration in double precision; its weights are float32 numbers."""
    net = EDMPrecond(**config)
    state = net.state_dict()
    for name, w in state.items():
        if not name.endswith("resample_filter"):
            state[name] = weight(prefix + name, tuple(w.shape))
    net.load_state_dict(state)
    return net.double().eval()


def shapes(net):
    return {name: list(w.shape) for name, w in net.state_dict().items()}


def rdc_weights(points, sd=0.5, mean=-1.2, std=1.2):
    s = points[:-1]
    p = 1 / (s * std * np.sqrt(2 * np.pi)) * np.exp(-((np.log(s) - mean) ** 2) / 2 * std**2)
    return (s**2 + sd**2) / (s * sd) ** 2 * p * np.diff(points)


def denoised(net, xs, sigma, label, classes):
    """Returns D(x_sigma; sigma, label) of a network that takes the label or has a head for it. The last label means no
    class."""
    if net.heads:
        return net(xs, sigma)[:, label]
    onehot = torch.eye(classes + 1)[[label], :classes].double()
    return net(xs, sigma, onehot)


@torch.no_grad()
def errors(net, x, noise, sigmas, label, classes):
    x = x[None].expand(len(sigmas), -1, -1, -1)
    xs = x + sigmas[:, None, None, None] * noise
    return ((denoised(net, xs, sigmas, label, classes) - x) ** 2).mean((1, 2, 3)).tolist()


def gradient(net, x, noise, sigmas, k, label, classes):
    """Returns d error / d x, through the noised image and through the target."""
    x = x[None].clone().requires_grad_()
    error = ((denoised(net, x + sigmas[k] * noise[k], sigmas[k], label, classes) - x) ** 2).mean()
    (dx,) = torch.autograd.grad(error, x)
    return dict(sigma=k, label=label, values=dx.flatten().tolist())


def make(name):
    case = CASES[name]
    config = case["config"]
    side, classes = config["img_resolution"], config["label_dim"] if "label_dim" in config else config["heads"] - 1
    image = (256 * uniform(f"{name} image", side * side * 3)).astype(int)
    x = torch.from_numpy(image.reshape(side, side, 3)).permute(2, 0, 1).double() / 127.5 - 1
    points = np.linspace(1e-4, 3, 126)
    sigmas = torch.from_numpy(points[:-1])
    noise = (2 * uniform("noise", 125 * side * side * 3) - 1) * math.sqrt(3)
    noise = torch.from_numpy(noise.astype(np.float32)).double().reshape(125, 3, side, side)

    net = network(config)
    *table, nobody = (errors(net, x, noise, sigmas, c, classes) for c in range(classes + 1))
    table = np.array(table)
    logits = -(table * rdc_weights(points, config.get("sigma_data", 0.5))).sum(1)
    posterior = np.exp(logits - logits.max())
    expected = dict(
        config={"_class_name": "EDMPrecond", **config, "id2label": {str(c): f"class {c}" for c in range(classes)}},
        tensors=shapes(net), image=image.tolist(), errors=table.tolist(), logits=logits.tolist(), posterior=(posterior / posterior.sum()).tolist(),
        gradients=[gradient(net, x, noise, sigmas, k, label, classes) for k, label in [(4, 0), (20, 1), (80, 2)]],
        nobody=nobody,
    )  # fmt: skip
    if "uncond" in case:
        net = network(case["uncond"], "uncond ")
        uncond = {"_class_name": "EDMPrecond", **case["uncond"]}
        expected["uncond"] = dict(config=uncond, tensors=shapes(net), errors=errors(net, x, noise, sigmas, 0, 0))
    return expected


def short(value):
    if isinstance(value, dict):
        return {key: short(each) for key, each in value.items()}
    if isinstance(value, list):
        return [short(each) for each in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


if __name__ == "__main__":
    for name in CASES:
        (HERE / "edm").mkdir(exist_ok=True)
        (HERE / "edm" / f"{name}.json").write_text(json.dumps(short(make(name))) + "\n")
