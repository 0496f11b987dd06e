"""The EDM denoiser of Karras et al. (2022, arXiv 2206.00364) in PyTorch: the ddpm++ UNet of Song et al. and EDM's
preconditioning. The parameters have the names of EDM's published state, so that EDM's weights load here and ours load
there. `save` writes the model folder that this repository reads.

    net = EDMPrecond(img_resolution=32, img_channels=3, label_dim=10, model_type="SongUNet", model_channels=128, ...)
    denoised = net(x + sigma * noise, sigma, one_hot)    # x [n, c, h, w] in [-1, 1], sigma [n], one_hot [n, 10] or None
"""

import json
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F


def xavier(weight, fan_in, fan_out, gain=1.0):
    nn.init.uniform_(weight, -1, 1).mul_(gain * math.sqrt(6 / (fan_in + fan_out)))


class Linear(nn.Linear):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__(inputs, outputs, bias=bias)

    @torch.no_grad()
    def reset_parameters(self):
        xavier(self.weight, self.in_features, self.out_features)
        if self.bias is not None:
            self.bias.zero_()


class Conv2d(nn.Module):
    """A 3x3 or 1x1 convolution after an optional resampling: "down" averages 2x2 pixels, "up" repeats each pixel.
    `kernel` 0 only resamples."""

    def __init__(self, inputs, outputs, kernel, resample=None, gain=1.0):
        super().__init__()
        self.resample = resample
        self.weight = self.bias = None
        if kernel:
            self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
            self.bias = nn.Parameter(torch.zeros(outputs))
            with torch.no_grad():
                xavier(self.weight, inputs * kernel**2, outputs * kernel**2, gain)
        if resample:
            self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))

    def forward(self, x):
        if self.resample == "down":
            x = F.avg_pool2d(x, 2)
        elif self.resample == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class GroupNorm(nn.GroupNorm):
    def __init__(self, channels, eps=1e-5):
        super().__init__(min(32, channels // 4), channels, eps=eps)


def positional(x, channels, endpoint=False):
    """Returns [cos, sin] of x [n] times channels / 2 frequencies, which fall from 1 to 1/10000 (exclusive unless
    `endpoint`)."""
    half = channels // 2
    steps = torch.arange(half, dtype=x.dtype, device=x.device) / (half - (1 if endpoint else 0))
    angle = x[:, None] * (1 / 10000) ** steps
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class UNetBlock(nn.Module):
    """A residual block: two convolutions with the embedding added between them, and a skip connection. Attention with
    `heads` heads follows."""

    def __init__(self, inputs, outputs, emb_channels, resample=None, heads=0, dropout=0.0, skip_scale=1.0, eps=1e-5,
                 resample_proj=False, adaptive_scale=True):
        super().__init__()
        self.in_channels, self.out_channels = inputs, outputs
        self.heads, self.dropout, self.skip_scale, self.adaptive_scale = heads, dropout, skip_scale, adaptive_scale
        self.norm0 = GroupNorm(inputs, eps)
        self.conv0 = Conv2d(inputs, outputs, 3, resample)
        self.affine = Linear(emb_channels, outputs * (2 if adaptive_scale else 1))
        self.norm1 = GroupNorm(outputs, eps)
        self.conv1 = Conv2d(outputs, outputs, 3, gain=1e-5)
        self.skip = None
        if inputs != outputs or resample:
            self.skip = Conv2d(inputs, outputs, 1 if resample_proj or inputs != outputs else 0, resample)
        if heads:
            self.norm2 = GroupNorm(outputs, eps)
            self.qkv = Conv2d(outputs, 3 * outputs, 1, gain=math.sqrt(0.2))
            self.proj = Conv2d(outputs, outputs, 1, gain=1e-5)

    def attention(self, x):
        n, c, h, w = x.shape
        # The channels of a head are interleaved: q, k, v, q, k, v, ...
        q, k, v = self.qkv(self.norm2(x)).reshape(n, self.heads, c // self.heads, 3, h * w).unbind(3)
        scores = q.transpose(2, 3) @ (k * (c // self.heads) ** -0.5)  # [n, heads, queries, keys]
        weights = scores.softmax(3, torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
        return self.proj((v @ weights.transpose(2, 3)).reshape(n, c, h, w))

    def forward(self, x, emb):
        y = self.conv0(F.silu(self.norm0(x)))
        params = self.affine(emb)[:, :, None, None].to(y.dtype)
        if self.adaptive_scale:
            scale, shift = params.chunk(2, dim=1)
            y = F.silu(self.norm1(y) * (1 + scale) + shift)
        else:
            y = F.silu(self.norm1(y + params))
        y = self.conv1(F.dropout(y, self.dropout, self.training))
        y = (y + (x if self.skip is None else self.skip(x))) * self.skip_scale
        return (y + self.attention(y)) * self.skip_scale if self.heads else y


class SongUNet(nn.Module):
    """The UNet called ddpm++: x [n, c, h, w], noise labels [n], class labels [n, label_dim] -> [n, out_channels, h, w]."""

    def __init__(self, img_resolution, in_channels, out_channels, label_dim=0, augment_dim=0, model_channels=128,
                 channel_mult=(1, 2, 2, 2), channel_mult_emb=4, num_blocks=4, attn_resolutions=(16,), dropout=0.10,
                 label_dropout=0.0, embedding_type="positional", channel_mult_noise=1, encoder_type="standard",
                 decoder_type="standard", resample_filter=(1, 1)):
        super().__init__()
        if (embedding_type, encoder_type, decoder_type, tuple(resample_filter)) != ("positional", "standard", "standard", (1, 1)):
            raise ValueError("SongUNet: expected ddpm++ (positional, standard, standard, [1, 1]), the only kind supported here")
        emb_channels, self.noise_channels = model_channels * channel_mult_emb, model_channels * channel_mult_noise
        self.label_dropout = label_dropout
        self.map_label = Linear(label_dim, self.noise_channels) if label_dim else None
        self.map_augment = Linear(augment_dim, self.noise_channels, bias=False) if augment_dim else None
        self.map_layer0 = Linear(self.noise_channels, emb_channels)
        self.map_layer1 = Linear(emb_channels, emb_channels)

        def block(inputs, outputs, resample=None, attention=False):
            return UNetBlock(inputs, outputs, emb_channels, resample, heads=1 if attention else 0, dropout=dropout,
                             skip_scale=math.sqrt(0.5), eps=1e-6, resample_proj=True, adaptive_scale=False)

        self.enc = nn.ModuleDict()
        channels, skips = model_channels, [model_channels]
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

        self.dec = nn.ModuleDict()
        for level, mult in reversed(list(enumerate(channel_mult))):
            res = img_resolution >> level
            if level == len(channel_mult) - 1:
                self.dec[f"{res}x{res}_in0"] = block(channels, channels, attention=True)
                self.dec[f"{res}x{res}_in1"] = block(channels, channels)
            else:
                self.dec[f"{res}x{res}_up"] = block(channels, channels, "up")
            for i in range(num_blocks + 1):
                attention = i == num_blocks and res in attn_resolutions
                self.dec[f"{res}x{res}_block{i}"] = block(channels + skips.pop(), model_channels * mult, attention=attention)
                channels = model_channels * mult
        self.dec[f"{res}x{res}_aux_norm"] = GroupNorm(channels, eps=1e-6)
        self.dec[f"{res}x{res}_aux_conv"] = Conv2d(channels, out_channels, 3, gain=1e-5)

    def embed(self, noise_labels, class_labels, augment_labels):
        cos, sin = positional(noise_labels, self.noise_channels, endpoint=True).chunk(2, dim=1)
        emb = torch.cat([sin, cos], dim=1)
        if self.map_label is not None:
            labels = class_labels
            if self.training and self.label_dropout:
                labels = labels * (torch.rand(max(len(emb), len(labels)), 1, device=emb.device) >= self.label_dropout)
            emb = emb + self.map_label(labels * math.sqrt(self.map_label.in_features))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

    def forward(self, x, noise_labels, class_labels=None, augment_labels=None):
        emb = self.embed(noise_labels, class_labels, augment_labels)
        skips = []
        for module in self.enc.values():
            x = module(x, emb) if isinstance(module, UNetBlock) else module(x)
            skips.append(x)
        for name, module in self.dec.items():
            if name.endswith("aux_norm"):
                x = F.silu(module(x))
            elif name.endswith("aux_conv"):
                x = module(x)
            else:
                x = module(x if x.shape[1] == module.in_channels else torch.cat([x, skips.pop()], dim=1), emb)
        return x


class EDMPrecond(nn.Module):
    """Denoises images: D(x; sigma, c) = c_skip x + c_out F(c_in x; ln(sigma) / 4, c). Takes x [n, c, h, w], sigma [n]
    and one-hot class labels [n, label_dim] (None means all zeros). Computes in the precision of the parameters.

    With heads=K (and label_dim 0), the network makes K predictions in one run: [n, K, c, h, w]."""

    networks = {"SongUNet": SongUNet}

    def __init__(self, img_resolution, img_channels, label_dim=0, use_fp16=False, sigma_min=0.0, sigma_max=math.inf,
                 sigma_data=0.5, *, model_type, heads=None, **arguments):
        super().__init__()
        self.sigma_data, self.label_dim, self.heads = sigma_data, label_dim, heads
        self.model = self.networks[model_type](img_resolution, img_channels, img_channels * (heads or 1), label_dim, **arguments)

    def forward(self, x, sigma, class_labels=None, augment_labels=None):
        x = x.to(next(self.parameters()).dtype)
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
        noise = sigma.log() / 4
        if self.label_dim == 0:
            class_labels = None
        else:
            class_labels = x.new_zeros(1, self.label_dim) if class_labels is None else class_labels.to(x.dtype)
        sigma, sd = sigma[:, None, None, None], self.sigma_data
        total = (sigma**2 + sd**2).sqrt()
        out = self.model(x / total, noise, class_labels, augment_labels)
        if self.heads:
            out = out.unflatten(1, (self.heads, -1))
            x, sigma, total = x[:, None], sigma[:, None], total[:, None]
        return (sd / total) ** 2 * x + sigma * sd / total * out.to(x.dtype)


def save(state, config, folder):
    """Writes the model folder: config.json, and model.safetensors in f16. `config` holds the arguments of EDMPrecond and
    `id2label`."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: w.half().contiguous() for name, w in state.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"_class_name": "EDMPrecond", **config}, indent=2) + "\n")
