"""Makes golden files of this folder: what diffusers, PyTorch and Pillow compute from small inputs.

    python3 make.py            # seeded; rewrites everything listed here, next to this file

unet2d-NAME/     tiny UNet2DModels with random weights in diffusers' layout. io.safetensors holds sample, timestep,
                 class_labels (if there are classes), output, and sample_gradient = d mean(output^2) / d sample. Weights are
                 rounded to the stored dtype first, then the network runs in float32. unet2d-table also holds the
                 activations after conv_in and after each down, mid and up block, of the first image only.
schedulers.json  alphas_cumprod (float32 values, printed exactly) at twelve levels.
errors-TYPE/     one model per prediction type, with the errors and survivors of the published staged elimination. Errors are
                 always distances between noises: a v or x0 prediction is first converted to eps_hat.
errors-noise.safetensors holds the noise; errors-images/ holds the images as PNG and as x0 in [-1, 1].
resize/          Pillow's resampling: inputs and outputs as PNG.

About diffusers: UNet2DModel supports SkipDown, AttnSkipDown, SkipUp and AttnSkipUp blocks, for 3-channel images only.
DownBlock2D and UpBlock2D ignore downsample_type and upsample_type and always use a convolution; only the Attn blocks read
these options. With class_embed_type "identity", the labels are embeddings [n, time dim].
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent

SMALL = dict(
    sample_size=16, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=[8, 16], norm_num_groups=4,
    down_block_types=["DownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D", "UpBlock2D"], attention_head_dim=8,
)  # fmt: skip

UNETS = {
    # the shipped model's shape: a class table with a null class, scale_shift, 28 -> 14 -> 7
    "table": dict(
        sample_size=28, block_out_channels=[8, 16, 16], num_class_embeds=11, resnet_time_scale_shift="scale_shift",
        down_block_types=["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
        norm_num_groups=8, dtype=torch.float16,
    ),
    # DDPM's CIFAR-10 network in small: padding 0, sine first, freq_shift 1, one head, two layers, no classes
    "ddpm": dict(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=[8, 16, 16], downsample_padding=0,
        down_block_types=["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None, norm_eps=1e-6, dtype=torch.bfloat16,
    ),
    # blocks that resample inside a residual block; class labels embedded like timesteps; gelu
    "resnet-blocks": dict(
        block_out_channels=[8, 16, 16], resnet_time_scale_shift="scale_shift", class_embed_type="timestep", act_fn="gelu",
        down_block_types=["ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"], attention_head_dim=4, freq_shift=1, dtype=torch.float16,
    ),
    # NCSN++: Fourier features of log(timestep), output divided by the timestep, an image pyramid with FIR filters
    "fourier-skip": dict(
        in_channels=3, out_channels=3, time_embedding_type="fourier", mid_block_scale_factor=math.sqrt(2), norm_eps=1e-6, norm_num_groups=None,
        block_out_channels=[32, 32], down_block_types=["SkipDownBlock2D", "AttnSkipDownBlock2D"],
        up_block_types=["AttnSkipUpBlock2D", "SkipUpBlock2D"], attention_head_dim=None, time_embedding_dim=32, dtype=torch.float16,
    ),
    # Fourier features with the plain blocks
    "fourier": dict(time_embedding_type="fourier", mid_block_scale_factor=math.sqrt(2), num_class_embeds=3, block_out_channels=[8, 16], dtype=torch.float16),
    # embeddings as labels, no attention, twice as many output channels (learned variance), an odd size (7x7)
    "identity": dict(
        sample_size=14, in_channels=2, out_channels=4, class_embed_type="identity", add_attention=False, time_embedding_dim=24,
        down_block_types=["DownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "UpBlock2D"], act_fn="relu", flip_sin_to_cos=False,
    ),
    # attention blocks that resample with a residual block, attn_norm_num_groups, centred input
    "resnet-type": dict(
        downsample_type="resnet", upsample_type="resnet", attn_norm_num_groups=2, center_input_sample=True, layers_per_block=2,
        down_block_types=["AttnDownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D", "AttnUpBlock2D"],
        num_class_embeds=5, resnet_time_scale_shift="scale_shift", act_fn="mish", attention_head_dim=4, dtype=torch.float16,
    ),
    # attention blocks that resample with a convolution, padding 0 on 28 -> 14, a time dimension of its own
    "attn-conv": dict(
        sample_size=28, block_out_channels=[8, 8, 16], downsample_padding=0, num_class_embeds=4, time_embedding_dim=40,
        down_block_types=["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        add_attention=False, dtype=torch.float16,
    ),
}  # fmt: skip


def randomise(model, generator):
    """Sets random norms and biases (never 0 or 1), and class embeddings large enough to matter."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if name.startswith("time_proj"):
                continue
            if "norm" in name:
                p.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                p.copy_(0.2 * noise)
            elif name.startswith("class_embedding"):
                p.copy_(noise if p.ndim == 2 and "linear" not in name else noise / p.shape[-1] ** 0.5)
            else:
                p.copy_(noise / p[0].numel() ** 0.5)


def make_unet(seed, dtype=torch.float32, **config):
    torch.manual_seed(seed)
    model = UNet2DModel(**{**SMALL, **config}).eval()
    randomise(model, torch.Generator().manual_seed(seed))
    return model.to(dtype).float()


def save_model(model, folder, dtype=torch.float32, scheduler=None, labels=None):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_config(folder / "unet")
    save_file({k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}, folder / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    (scheduler or DDPMScheduler()).save_pretrained(folder / "scheduler")
    index = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", type(scheduler or DDPMScheduler()).__name__], "unet": ["diffusers", "UNet2DModel"]}
    write_json(folder / "model_index.json", index | ({"id2label": {str(i): s for i, s in enumerate(labels)}} if labels else {}))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def class_labels(model, n, generator):
    kind, embeds = model.config.class_embed_type, model.config.num_class_embeds
    if kind == "identity":
        return torch.randn(n, model.time_embedding.linear_2.out_features, generator=generator)
    if kind == "timestep":
        return torch.randint(0, 1000, (n,), generator=generator)
    return None if embeds is None else torch.arange(n) * 7 % embeds


def unets():
    for seed, (name, config) in enumerate(UNETS.items()):
        dtype = config.get("dtype", torch.float32)
        model, g = make_unet(seed, **config), torch.Generator().manual_seed(100 + seed)
        n, c, side = 3, model.config.in_channels, model.config.sample_size
        sample = torch.randn(n, c, side, side, generator=g).requires_grad_()
        fourier = model.config.time_embedding_type == "fourier"
        timestep = torch.tensor([0.02, 1.5, 40.0]) if fourier else torch.tensor([0, 345, 999])
        labels = class_labels(model, n, g)

        steps = {}
        watch = lambda key: lambda _m, _i, out: steps.__setitem__(key, (out[0] if isinstance(out, tuple) else out)[:1].detach())
        if name == "table":
            model.conv_in.register_forward_hook(watch("conv_in"))
            model.mid_block.register_forward_hook(watch("mid_block"))
            for i, (down, up) in enumerate(zip(model.down_blocks, model.up_blocks)):
                down.register_forward_hook(watch(f"down_blocks.{i}"))
                up.register_forward_hook(watch(f"up_blocks.{i}"))
        output = model(sample, timestep, class_labels=labels).sample
        gradient = torch.autograd.grad(output.square().mean(), sample)[0]
        io = dict(sample=sample.detach(), timestep=timestep, output=output.detach(), sample_gradient=gradient, **steps)
        folder = HERE / f"unet2d-{name}"
        save_model(model, folder, dtype)
        save_file({k: v.contiguous() for k, v in (io | ({} if labels is None else {"class_labels": labels})).items()}, folder / "io.safetensors")
        print(f"unet2d-{name}: output {list(output.shape)} rms {output.square().mean().sqrt():.3f}")


def schedulers():
    at = [0, 1, 2, 15, 50, 100, 250, 500, 750, 900, 998, 999]
    cosine_betas = (np.sin(np.linspace(0.05, 1.2, 1000)) ** 2 * 0.015 + 1e-4).astype(np.float32).tolist()
    configs = [dict(beta_schedule=s) for s in ("linear", "scaled_linear", "squaredcos_cap_v2")]
    configs += [dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)]
    configs += [dict(beta_schedule=s, rescale_betas_zero_snr=True) for s in ("linear", "scaled_linear")]
    cases = [
        {"class": k.__name__, "config": c, "alphas_cumprod": {str(t): float(k(**c).alphas_cumprod[t]) for t in at}}
        for k in (DDPMScheduler, DDIMScheduler)
        for c in configs + [dict(trained_betas=cosine_betas)]
    ]
    short = dict(num_train_timesteps=100, beta_schedule="sigmoid")
    cases.append({"class": "DDPMScheduler", "config": short, "alphas_cumprod": {str(t): float(DDPMScheduler(**short).alphas_cumprod[t]) for t in (0, 1, 50, 98, 99)}})
    for case in cases[1:]:
        if "trained_betas" in case["config"]:
            case["config"] = {"trained_betas": "trained_betas.json"}
    (HERE / "trained_betas.json").write_text(json.dumps(cosine_betas) + "\n")
    write_json(HERE / "schedulers.json", cases)
    print(f"schedulers.json: {len(cases)} cases")


LOSSES = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}
SCHEDULES = [([8, 32], [5, 1]), ([5, 12, 30], [6, 2, 1]), ([10, 25], [3, 1])]  # in turn: nested stages; stages not nested and cut off; M does not divide T


def noise_of(prediction, kind, xt, alpha_bar):
    """Converts a prediction of noise, v or x0 to eps_hat."""
    if kind == "v_prediction":
        return alpha_bar.sqrt() * prediction + (1 - alpha_bar).sqrt() * xt
    if kind == "sample":
        return (xt - alpha_bar.sqrt() * prediction) / (1 - alpha_bar).sqrt()
    return prediction


def staged(error_of, classes, n_samples, to_keep, levels=1000):
    """Runs the published staged elimination; error_of(t, noise, candidates) returns errors [candidates]."""
    most = max(n_samples)
    grid = list(range(levels // most // 2, levels, levels // most))[:most]
    alive, sums, seen, stages = list(range(classes)), {c: [] for c in range(classes)}, [], []
    for n, keep in zip(n_samples, to_keep):
        stride = len(grid) // n
        fresh = [t for t in grid[stride // 2 :: stride][:n] if t not in seen]
        for t in fresh:
            for c, error in zip(alive, error_of(t, len(seen), alive)):
                sums[c].append(error)
            seen.append(t)
        means = {c: float(np.mean(sums[c], dtype=np.float64)) for c in alive}
        ranked = sorted(alive, key=means.get)
        if keep < len(ranked):
            assert means[ranked[keep]] - means[ranked[keep - 1]] > 1e-4 * means[ranked[0]], "too close to call"
        stages.append({
            "timesteps": fresh, "noise": list(range(len(seen) - len(fresh), len(seen))),
            "errors": {str(c): sums[c][len(seen) - len(fresh) :] for c in alive},
            "means": {str(c): means[c] for c in alive}, "survivors": sorted(ranked[:keep]),
        })  # fmt: skip
        alive = sorted(ranked[:keep])
    return stages


@torch.no_grad()
def errors():
    g, side, classes = torch.Generator().manual_seed(7), 16, 10
    noise = torch.randn(32, 1, side, side, generator=g)
    pixels = (F.interpolate(torch.rand(3, 1, 5, 5, generator=g), side, mode="bicubic").clamp(0, 1) * 255).round()
    x0 = pixels / 127.5 - 1
    shutil.rmtree(HERE / "errors-images", ignore_errors=True)
    (HERE / "errors-images").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image[0].byte().numpy()).save(HERE / "errors-images" / f"{i}.png")
    save_file({"x0": x0}, HERE / "errors-images" / "x0.safetensors")
    save_file({"noise": noise}, HERE / "errors-noise.safetensors")

    for seed, kind in enumerate(("epsilon", "v_prediction", "sample")):
        scheduler = DDPMScheduler(prediction_type=kind, beta_schedule="linear" if kind == "epsilon" else "squaredcos_cap_v2")
        model = make_unet(50 + seed, torch.float16, num_class_embeds=classes + 1, resnet_time_scale_shift="scale_shift")
        folder = HERE / f"errors-{kind}"
        save_model(model, folder, torch.float16, scheduler=scheduler, labels=[f"class {c}" for c in range(classes)])
        cases = []
        for loss in LOSSES if kind == "epsilon" else ["l2"]:
            for n_samples, to_keep in SCHEDULES if loss == "l2" else SCHEDULES[:1]:
                for i in range(len(x0)):

                    def error_of(t, k, candidates):
                        alpha_bar, n = scheduler.alphas_cumprod[t], len(candidates)
                        xt = alpha_bar.sqrt() * x0[i : i + 1] + (1 - alpha_bar).sqrt() * noise[k : k + 1]
                        out = model(xt.expand(n, -1, -1, -1), torch.tensor(t), class_labels=torch.tensor(candidates)).sample
                        eps = noise_of(out, kind, xt, alpha_bar)
                        return LOSSES[loss](eps, noise[k : k + 1].expand_as(eps), reduction="none").mean((1, 2, 3)).tolist()

                    stages = staged(error_of, classes, n_samples, to_keep)
                    cases.append(dict(image=i, loss=loss, n_samples=n_samples, to_keep=to_keep, stages=stages, label=stages[-1]["survivors"][0]))
        text = json.dumps(cases).replace('{"image"', '\n{"image"')  # one case per line
        (folder / "expected.json").write_text(text + "\n")
        print(f"errors-{kind}: labels {[c['label'] for c in cases]}")


def resize():
    folder = HERE / "resize"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rng = np.random.default_rng(3)
    cases = [  # mode, filter, (width, height) of the input, (width, height) of the output
        ("RGB", "bicubic", (61, 47), (32, 32)), ("RGB", "bicubic", (17, 23), (64, 51)), ("L", "bicubic", (28, 28), (32, 32)),
        ("L", "bicubic", (97, 33), (28, 28)), ("RGB", "bilinear", (50, 75), (21, 32)), ("RGB", "bilinear", (13, 9), (40, 40)),
        ("L", "bilinear", (31, 64), (7, 5)), ("L", "bilinear", (7, 7), (29, 28)), ("RGB", "bicubic", (32, 32), (33, 31)),
        ("L", "bicubic", (1, 40), (3, 9)), ("RGB", "bicubic", (120, 80), (16, 11)), ("RGB", "bilinear", (64, 1), (16, 4)),
    ]  # fmt: skip
    listed = []
    for i, (mode, name, size, to) in enumerate(cases):
        w, h = size
        wave = np.sin(np.arange(w)[None] / 3.1 + i) * np.cos(np.arange(h)[:, None] / 4.7) * 90 + 128
        shape = (h, w, 3) if mode == "RGB" else (h, w)
        noise = rng.normal(0, 60 if i % 2 else 15, shape)
        pixels = np.clip((wave[..., None] if mode == "RGB" else wave) + noise, 0, 255).astype(np.uint8)
        image = Image.fromarray(pixels)
        image.save(folder / f"{i:02d}-in.png")
        image.resize(to, getattr(Image.Resampling, name.upper())).save(folder / f"{i:02d}-out.png")
        listed.append({"in": f"{i:02d}-in.png", "out": f"{i:02d}-out.png", "filter": name, "width": to[0], "height": to[1]})
    write_json(folder / "cases.json", listed)
    print(f"resize: {len(listed)} cases")


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for part in (unets, schedulers, errors, resize):
        part()
