"""Makes unet2dcondition-NAME/: tiny UNet2DConditionModels with random weights, and diffusers' outputs for two noised
latents and five samples of them. Also makes unet2dcondition-tensors.json: configurations with a digest of their state dicts.

    python3 unet2dcondition.py

io.safetensors: sample [2, c, h, w] and timestep [2] of the two views; view [5], the view of each sample; context
[5, tokens, dim], one prompt per sample; output [5, c, h, w]. Weights are rounded to the stored dtype first, then the network
runs in float32.
"""

import json
import shutil
from pathlib import Path

import diffusers
import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import logging
from safetensors.torch import save_file

HERE = Path(__file__).parent
DOWN, CROSS_DOWN, UP, CROSS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"

# Stable Diffusion in small: 1x1 projections, the same number of heads everywhere.
SMALL = dict(
    sample_size=8, block_out_channels=[8, 16], layers_per_block=1, norm_num_groups=4, cross_attention_dim=12, attention_head_dim=2,
    down_block_types=[CROSS_DOWN, DOWN], up_block_types=[UP, CROSS_UP],
)  # fmt: skip

CASES = {
    # Stable Diffusion 1.x: eight heads everywhere, so that small levels have small heads
    "sd1": dict(attention_head_dim=8, layers_per_block=2, norm_num_groups=8, dtype=torch.float16),
    # Stable Diffusion 2.x: linear projections, heads per level
    "sd2": dict(block_out_channels=[8, 16, 16], down_block_types=[CROSS_DOWN, CROSS_DOWN, DOWN], up_block_types=[UP, CROSS_UP, CROSS_UP],
                attention_head_dim=[2, 4, 4], use_linear_projection=True, tokens=7, dtype=torch.float16),
    # 2.1 at 768 pixels: v-prediction, upcast attention; a rectangular input, and heads larger than a fused kernel supports
    "v": dict(block_out_channels=[36], down_block_types=[CROSS_DOWN], up_block_types=[UP], mid_block_type=None, attention_head_dim=1,
              use_linear_projection=True, upcast_attention=True, sample_size=[4, 8], dtype=torch.float16),
    # both attentions of the first level attend to the prompt; scale and shift, another activation, fewer skips than layers
    "only-cross": dict(only_cross_attention=[True, False], resnet_time_scale_shift="scale_shift", act_fn="gelu", mid_block_scale_factor=1.4142135,
                       down_block_types=[CROSS_DOWN, CROSS_DOWN], up_block_types=[CROSS_UP, CROSS_UP], dtype=torch.float16),
    # layers per level; two transformer blocks after each resnet in the middle and on the lower level
    "layers": dict(layers_per_block=[1, 2], transformer_layers_per_block=[1, 2], down_block_types=[CROSS_DOWN, CROSS_DOWN],
                   up_block_types=[CROSS_UP, UP], time_embedding_dim=20, freq_shift=1, flip_sin_to_cos=False, norm_eps=1e-6, dtype=torch.float16),
    # the prompt enters late, without cross-attention on the way down; centred input, four more output channels
    "late": dict(down_block_types=[DOWN, DOWN], up_block_types=[UP, CROSS_UP], mid_block_type="UNetMidBlock2D", center_input_sample=True,
                 out_channels=8, downsample_padding=0, dtype=torch.float16),
    # no middle block, as in distilled models; sides that cannot be halved twice; heads that do not divide the channels
    "odd": dict(block_out_channels=[8, 12, 12], down_block_types=[DOWN, CROSS_DOWN, CROSS_DOWN], up_block_types=[CROSS_UP, CROSS_UP, UP],
                mid_block_type=None, sample_size=[9, 7], attention_head_dim=[2, 5, 3], tokens=4, dtype=torch.float32),
}  # fmt: skip


def randomised(config, seed, dtype):
    """Makes a model with random norms and biases (never 0 or 1) and weights that keep the scale of their inputs."""
    torch.manual_seed(seed)
    model = UNet2DConditionModel(**config).eval()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if "norm" in name:
                p.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                p.copy_(0.2 * noise)
            else:
                p.copy_(noise / p[0].numel() ** 0.5)
    return model.to(dtype).float()


def make(name, seed, tokens=5, dtype=torch.float32, **changes):
    config = {**SMALL, **changes}
    model = randomised(config, seed, dtype)
    folder = HERE / f"unet2dcondition-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_config(folder)
    save_file({k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})

    g = torch.Generator().manual_seed(100 + seed)
    size = model.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    sample = torch.randn(2, model.config.in_channels, height, width, generator=g)
    timestep = torch.tensor([17, 641])
    view = torch.tensor([0, 1, 1, 0, 1])
    context = torch.randn(5, tokens, model.config.cross_attention_dim, generator=g)
    with torch.no_grad():
        output = model(sample[view], timestep[view], context).sample
        other = model(sample[view], timestep[view], context.flip(0)).sample
    save_file(dict(sample=sample, timestep=timestep, view=view, context=context, output=output), folder / "io.safetensors")
    prompt = (output - other).abs().max() / output.abs().max()
    count = sum(p.numel() for p in model.parameters())
    print(f"{name}: {count} parameters, output up to {output.abs().max():.2f}, of which the prompt changes {prompt:.2f}")


# Full-size configurations as they are published, and cases that the small ones above leave out.
SD1 = dict(sample_size=64, cross_attention_dim=768)
SD2 = dict(sample_size=64, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True)
TENSORS = [
    SD1,
    SD2,
    # distilled: one layer, no middle block
    dict(SD1, layers_per_block=1, mid_block_type=None, block_out_channels=[320, 640, 1280], down_block_types=[CROSS_DOWN] * 3,
         up_block_types=[CROSS_UP] * 3),
]  # fmt: skip


def state(config):
    with torch.device("meta"):
        model = UNet2DConditionModel(**config)
    tensors = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {"config": {"_class_name": "UNet2DConditionModel", **config}, "tensors": tensors}


def summary(config):
    """Returns the number of tensors and parameters, and one digest of all names and shapes, because the full lists of
    full-size networks are long."""
    import hashlib

    made = state(config)
    lines = sorted(f"{name} {shape}" for name, shape in made["tensors"].items())
    text = "\n".join(lines).replace(" ", "")
    parameters = 0
    for shape in made["tensors"].values():
        product = 1
        for side in shape:
            product *= side
        parameters += product
    return {"config": made["config"], "tensors": len(lines), "parameters": parameters, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def main():
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, case) in enumerate(CASES.items()):
        make(name, seed, **case)
    lines = ",\n".join(json.dumps(summary(config), separators=(",", ":")) for config in TENSORS)
    head = json.dumps(f"diffusers {diffusers.__version__}")
    (HERE / "unet2dcondition-tensors.json").write_text(f'{{"madeWith":{head},"cases":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
