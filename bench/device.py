"""The shapes of `npm run bench -- device`, and Stable Diffusion 1.5's UNet, timed in PyTorch.

    python3 bench/device.py < shapes.json

Standard input is {"budget": seconds, "entries": [{"id": ..., "op": ..., ...}], "unet": [batch, ...], "compile": bool}.
Standard output has one JSON object per line. Each is written as soon as it is known, so that the results so far are
kept if the run is killed. Shapes of tensors in the input are channel-major: [channels, samples, height, width]. Needs
torch only.
"""

import json
import os
import sys
import time

START = time.monotonic()  # importing torch is part of the run's time

import torch
import torch.nn as nn
import torch.nn.functional as F

JOB = json.load(sys.stdin)
BUDGET = float(JOB.get("budget", 120))
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
SD15_PARAMETERS = 859_520_964


def left():
    return BUDGET - (time.monotonic() - START)


def tell(**facts):
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def sync():
    if GPU:
        torch.cuda.synchronize()


def measure(run, samples=5, sample_ms=20.0):
    """Returns the median milliseconds of a run. CUDA events time many runs at once, so that no launch waits for the host."""

    def timed(count):
        if GPU:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(count):
                run()
            end.record()
            torch.cuda.synchronize()
            return begin.elapsed_time(end) / count
        start = time.perf_counter()
        for _ in range(count):
            run()
        return 1000 * (time.perf_counter() - start) / count

    timed(1)
    once = timed(1)
    if once < sample_ms / 4:
        once = timed(8)
    if once > 1000 * left() / 3:
        return once
    count = max(1, min(2000, int(sample_ms / max(once, 1e-4)) + 1))
    return sorted(timed(count) for _ in range(samples if once < 1000 else 1))[samples // 2 if once < 1000 else 0]


def set_tf32(on):
    try:
        torch.backends.cuda.matmul.allow_tf32 = on
        torch.backends.cudnn.allow_tf32 = on
    except (AttributeError, RuntimeError):  # later versions of torch
        torch.backends.fp32_precision = "tf32" if on else "ieee"


MODES = (
    [("f32", torch.float32, False), ("tf32", torch.float32, True), ("f16", torch.float16, False), ("bf16", torch.bfloat16, False)]
    if GPU
    else [("f32", torch.float32, False)]
)


def make(entry, dtype, channels_last):
    """Returns the work of an entry as a function, or None if this layout makes no difference."""
    op = entry["op"]

    def tensor(*shape):
        return torch.randn(*shape, device=DEVICE, dtype=dtype)

    def image(*shape):
        x = tensor(*shape)
        return x.to(memory_format=torch.channels_last) if channels_last else x

    if op == "attention":
        if channels_last:
            return None
        h, d, n = entry["heads"], entry["headDim"], entry["n"]
        q = tensor(n, h, entry["queries"], d)
        k, v = tensor(n, h, entry["keys"], d), tensor(n, h, entry["keys"], d)
        causal = bool(entry.get("causal", False))
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=entry["scale"])
    c, n, height, width = entry["x"]
    if op == "linear":
        if channels_last:
            return None
        x = tensor(n * height * width, c)
        weight = tensor(entry["outChannels"], c)
        bias = tensor(entry["outChannels"]) if entry.get("bias") else None
        return lambda: F.linear(x, weight, bias)
    if op == "add":
        x1, x2 = image(n, c, height, width), image(n, c, height, width)
        return None if channels_last else lambda: x1 + x2
    if op == "groupNorm":
        x, gamma, beta = image(n, c, height, width), tensor(c), tensor(c)
        return lambda: F.silu(F.group_norm(x, entry["groups"], gamma, beta))
    top, left_, bottom, right = entry["padding"]
    stride, (kh, kw) = entry.get("stride", 1), entry["kernel"]
    x = image(n, c, height, width)
    weight = image(entry["outChannels"], c, kh, kw)
    same = top == bottom and left_ == right

    def padded(x):
        return x if same else F.pad(x, (left_, right, top, bottom))

    padding = (top, left_) if same else (0, 0)
    if op == "conv2d":
        bias = tensor(entry["outChannels"]) if entry.get("bias") else None
        scale = entry.get("upsample", 1)

        def convolve():
            y = F.interpolate(x, scale_factor=scale, mode="nearest") if scale > 1 else x
            return F.conv2d(padded(y), weight, bias, stride, padding)

        return convolve
    if op == "weightGradient":
        whole = padded(x)
        dy = torch.randn_like(F.conv2d(whole, weight, None, stride, padding))
        return lambda: torch.ops.aten.convolution_backward(
            dy, whole, weight, None, [stride] * 2, list(padding), [1, 1], False, [0, 0], 1, [False, True, False]
        )
    return None


def time_entries(entries, until):
    for entry in entries:
        if left() < until:
            tell(section="note", text="the budget ended before all shapes were timed")
            return
        found = {}
        for name, dtype, tf32 in MODES:
            set_tf32(tf32)
            for channels_last in (False, True):
                key = name + (" channels_last" if channels_last else "")
                try:
                    run = make(entry, dtype, channels_last)
                    if run is not None:
                        with torch.inference_mode():
                            found[key] = measure(run)
                    del run
                except Exception as error:  # noqa: BLE001 - one shape must not end the run
                    found[key] = f"{type(error).__name__}: {str(error)[:200]}"
                if left() < until:
                    break
            if left() < until:
                break
        tell(section="op", id=entry["id"], op=entry["op"], ms=found)
        if GPU:
            torch.cuda.empty_cache()


# Stable Diffusion 1.5's UNet2DConditionModel, layer by layer as in diffusers.


class Resnet(nn.Module):
    def __init__(self, c, out):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, c, eps=1e-5), nn.Conv2d(c, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(1280, out)
        self.norm2, self.conv2 = nn.GroupNorm(32, out, eps=1e-5), nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(c, out, 1) if c != out else None

    def forward(self, x, time):
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    def __init__(self, width, context, heads=8):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, x, context=None):
        context = x if context is None else context

        def split(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        y = F.scaled_dot_product_attention(split(self.to_q(x)), split(self.to_k(context)), split(self.to_v(context)))
        return self.to_out(y.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.proj_in = nn.GroupNorm(32, width, eps=1e-6), nn.Conv2d(width, width, 1)
        self.norm1, self.attn1 = nn.LayerNorm(width), Attention(width, width)
        self.norm2, self.attn2 = nn.LayerNorm(width), Attention(width, 768)
        self.norm3, self.geglu, self.ff = nn.LayerNorm(width), nn.Linear(width, 8 * width), nn.Linear(4 * width, width)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x, context):
        n, c, h, w = x.shape
        y = self.proj_in(self.norm(x)).permute(0, 2, 3, 1).reshape(n, h * w, c)
        y = y + self.attn1(self.norm1(y))
        y = y + self.attn2(self.norm2(y), context)
        value, gate = self.geglu(self.norm3(y)).chunk(2, dim=-1)
        y = y + self.ff(value * F.gelu(gate))
        return x + self.proj_out(y.reshape(n, h, w, c).permute(0, 3, 1, 2))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [320, 640, 1280, 1280]
        self.conv_in = nn.Conv2d(4, 320, 3, padding=1)
        self.time1, self.time2 = nn.Linear(320, 1280), nn.Linear(1280, 1280)
        self.down, skips, c = nn.ModuleList(), [320], 320
        for level, width in enumerate(widths):
            block = nn.ModuleDict({"resnets": nn.ModuleList(), "attentions": nn.ModuleList()})
            for _ in range(2):
                block["resnets"].append(Resnet(c, width))
                if level < 3:
                    block["attentions"].append(Transformer(width))
                c = width
                skips.append(c)
            if level < 3:
                block["sample"] = nn.Conv2d(c, c, 3, stride=2, padding=1)
                skips.append(c)
            self.down.append(block)
        self.mid1, self.mid_attention, self.mid2 = Resnet(1280, 1280), Transformer(1280), Resnet(1280, 1280)
        self.up = nn.ModuleList()
        for level, width in enumerate(reversed(widths)):
            block = nn.ModuleDict({"resnets": nn.ModuleList(), "attentions": nn.ModuleList()})
            for _ in range(3):
                block["resnets"].append(Resnet(c + skips.pop(), width))
                if level > 0:
                    block["attentions"].append(Transformer(width))
                c = width
            if level < 3:
                block["sample"] = nn.Conv2d(c, c, 3, padding=1)
            self.up.append(block)
        self.norm_out, self.conv_out = nn.GroupNorm(32, 320, eps=1e-5), nn.Conv2d(320, 4, 3, padding=1)

    def forward(self, x, time, context):
        time = self.time2(F.silu(self.time1(time)))
        x = self.conv_in(x)
        skips = [x]
        for block in self.down:
            for i, resnet in enumerate(block["resnets"]):
                x = resnet(x, time)
                if len(block["attentions"]) > 0:
                    x = block["attentions"][i](x, context)
                skips.append(x)
            if "sample" in block:
                x = block["sample"](x)
                skips.append(x)
        x = self.mid2(self.mid_attention(self.mid1(x, time), context), time)
        for block in self.up:
            for i, resnet in enumerate(block["resnets"]):
                x = resnet(torch.cat([x, skips.pop()], dim=1), time)
                if len(block["attentions"]) > 0:
                    x = block["attentions"][i](x, context)
            if "sample" in block:
                x = block["sample"](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(x)))


def new_unet():
    """Returns the network with random values: one block of a million, repeated and scaled by the fan-in."""
    with torch.device("meta"):
        unet = UNet()
    unet = unet.to_empty(device=DEVICE).eval().requires_grad_(False)
    block = torch.randn(1 << 20, device=DEVICE)
    for name, parameter in unet.named_parameters():
        flat = parameter.data.view(-1)
        for at in range(0, flat.numel(), block.numel()):
            part = flat[at : at + block.numel()]
            part.copy_(block[: part.numel()])
        if parameter.dim() > 1:
            parameter.data.mul_(parameter[0].numel() ** -0.5)
        elif name.endswith("weight"):
            parameter.data.mul_(0.1).add_(1)
        else:
            parameter.data.mul_(0.05)
    return unet


def time_unets(batches, compiled):
    unet = new_unet()
    parameters = sum(parameter.numel() for parameter in unet.parameters())
    tell(section="unet-facts", parameters=parameters, asExpected=parameters == SD15_PARAMETERS)
    # The product is compared with f16 and channels last, so that comes first. Compilation comes last.
    plans = [("f16", torch.float16, False, True), ("f32", torch.float32, False, False), ("tf32", torch.float32, True, True)]
    plans += [("f32", torch.float32, False, True), ("f16", torch.float16, False, False), ("bf16", torch.bfloat16, False, True)]
    plans = plans if GPU else [("f32", torch.float32, False, False), ("f32", torch.float32, False, True)]
    plans = [(*plan, False) for plan in plans]
    if compiled:
        # It takes a minute or two and may be killed.
        plans.append(("f16", torch.float16, False, True, True))
    for name, dtype, tf32, channels_last, use_compile in plans:
        for batch in batches[-1:] if use_compile else batches:
            key = name + (" channels_last" if channels_last else "") + (" compile" if use_compile else "")
            if left() < (40 if use_compile else 5):
                tell(section="note", text=f"no time is left for {key}, batch {batch}")
                continue
            try:
                set_tf32(tf32)
                layout = torch.channels_last if channels_last else torch.contiguous_format
                unet = unet.to(dtype=dtype, memory_format=layout)
                x = torch.randn(batch, 4, 64, 64, device=DEVICE, dtype=dtype).to(memory_format=layout)
                time_row = torch.randn(batch, 320, device=DEVICE, dtype=dtype)
                context = torch.randn(batch, 77, 768, device=DEVICE, dtype=dtype)
                if GPU:
                    torch.cuda.reset_peak_memory_stats()
                with torch.inference_mode():
                    run = torch.compile(unet) if use_compile else unet
                    start = time.monotonic()
                    y = run(x, time_row, context)
                    sync()
                    first = time.monotonic() - start
                    ms = 1000 * first
                    if 2.5 * first < left() or use_compile:
                        ms = measure(lambda: run(x, time_row, context), sample_ms=100.0)
                tell(
                    section="unet",
                    mode=key,
                    batch=batch,
                    ms=ms,
                    msPerSample=ms / batch,
                    firstSeconds=first,
                    finite=bool(torch.isfinite(y).all()),
                    rms=float(y.float().square().mean().sqrt()),
                    mebibytes=torch.cuda.max_memory_allocated() / 2**20 if GPU else None,
                )
            except Exception as error:  # noqa: BLE001
                tell(section="unet", mode=key, batch=batch, error=f"{type(error).__name__}: {str(error)[:300]}")
            if GPU:
                torch.cuda.empty_cache()


def main():
    tell(
        section="info",
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if GPU else None,
        device=torch.cuda.get_device_name() if GPU else f"CPU, {torch.get_num_threads()} threads",
        importSeconds=time.monotonic() - START,
    )
    torch.backends.cudnn.benchmark = True
    entries = JOB.get("entries", [])
    batches = JOB.get("unet", [])
    # Where both are asked for, the shapes may take 0.4 of the time.
    time_entries(entries, 0.6 * BUDGET if batches else 1.0)
    if batches:
        try:
            time_unets(batches, bool(JOB.get("compile")) and GPU)
        except Exception as error:  # noqa: BLE001
            tell(section="note", text=f"the UNet: {type(error).__name__}: {str(error)[:300]}")
    tell(section="end", seconds=time.monotonic() - START)
    sys.stdout.flush()
    os._exit(0)  # nothing is left to do, and tearing CUDA down takes seconds


main()
