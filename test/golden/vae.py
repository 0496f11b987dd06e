"""Makes vae-NAME/: tiny AutoencoderKLs with random weights in diffusers' layout, and the outputs of their encoders.

    python3 vae.py             # seeded; rewrites the folders next to this file

io.safetensors holds image.K [n, 3, h, w] in [-1, 1] and latent.K: (the posterior's mean minus shift_factor) times
scaling_factor. Weights are rounded to the stored dtype first, then the network runs in float32. The files also hold the
decoder, as published files do. If `old` is set, attention has the names from before 2023, stored as matrices ("linear") or
as the 1x1 convolutions of the first checkpoints ("conv").
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

HERE = Path(__file__).parent

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

CASES = {
    # Stable Diffusion's autoencoder in small, as in its first folders
    "sd": dict(config=dict(block_out_channels=[8, 16, 16], layers_per_block=1, norm_num_groups=4, sample_size=32),
               old="linear", dtype=torch.float16, images=[(2, 32, 32), (1, 24, 40)]),
    # 1x1 convolutions instead of matrices; odd sizes, which lose their last row and column on the way
    "conv": dict(config=dict(block_out_channels=[8, 8], layers_per_block=2, norm_num_groups=2, scaling_factor=0.5, act_fn="gelu"),
                 old="conv", dtype=torch.bfloat16, images=[(3, 18, 27), (1, 9, 7)]),
    # no quant_conv, a shift, more channels than a picture
    "shift": dict(config=dict(block_out_channels=[8, 16], layers_per_block=1, norm_num_groups=4, latent_channels=8, scaling_factor=1.5305,
                              shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False, force_upcast=True),
                  old=None, dtype=torch.float32, images=[(1, 16, 16), (1, 28, 12)]),
    # no attention
    "plain": dict(config=dict(block_out_channels=[8, 12, 16, 16], layers_per_block=1, norm_num_groups=4, mid_block_add_attention=False),
                  old=None, dtype=torch.float16, images=[(1, 32, 32), (2, 16, 48)]),
}  # fmt: skip


def randomise(model, generator):
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name:
                p.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                p.copy_(0.2 * noise)
            else:
                p.copy_(noise / p[0].numel() ** 0.5)


def stored(state, old):
    """Returns the state dict with the names and shapes that files of that time have."""
    if old is None:
        return dict(state)
    out = {}
    for name, tensor in state.items():
        for now, before in OLD_NAMES.items():
            if f".attentions.0.{now}." in name:
                name = name.replace(f".{now}.", f".{before}.")
                if old == "conv" and tensor.ndim == 2:
                    tensor = tensor[:, :, None, None]
        out[name] = tensor.contiguous()
    return out


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, case) in enumerate(CASES.items()):
        config = case["config"]
        levels = len(config["block_out_channels"])
        full = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels, **config}
        model = AutoencoderKL(**full).eval()
        generator = torch.Generator().manual_seed(100 + seed)
        randomise(model, generator)
        model = model.to(case["dtype"]).float()
        folder = HERE / f"vae-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "vae").mkdir(parents=True)
        (folder / "vae" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", **full}, indent=2) + "\n")
        state = stored({k: v.to(case["dtype"]) for k, v in model.state_dict().items()}, case["old"])
        save_file(state, folder / "vae" / "diffusion_pytorch_model.safetensors")
        io = {}
        for k, (n, h, w) in enumerate(case["images"]):
            image = 2 * torch.rand(n, 3, h, w, generator=generator) - 1
            mean = model.encode(image).latent_dist.mean
            io[f"image.{k}"] = image
            io[f"latent.{k}"] = ((mean - config.get("shift_factor", 0)) * model.config.scaling_factor).contiguous()
            print(f"vae-{name}: latent {list(mean.shape)} rms {mean.square().mean().sqrt():.3f}")
        save_file(io, folder / "io.safetensors")


if __name__ == "__main__":
    main()
