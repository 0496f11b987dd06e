"""Creates a UNet of Stable Diffusion 1.5's size with random weights, and its output in PyTorch.

    python3 bench/full-size.py FOLDER

FOLDER gets config.json, diffusion_pytorch_model.fp16.safetensors (860 M parameters, 1.7 GB) and io.safetensors: an
input, and the output of the same weights computed in f32. Needs torch and diffusers, and 8 GB of memory.
"""

import json
import sys
import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
config = dict(
    sample_size=64,
    in_channels=4,
    out_channels=4,
    center_input_sample=False,
    flip_sin_to_cos=True,
    freq_shift=0,
    down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    block_out_channels=[320, 640, 1280, 1280],
    layers_per_block=2,
    downsample_padding=1,
    mid_block_scale_factor=1,
    act_fn="silu",
    norm_num_groups=32,
    norm_eps=1e-5,
    cross_attention_dim=768,
    attention_head_dim=8,
)
with torch.device("meta"):
    unet = UNet2DConditionModel(**config)
unet = unet.to_empty(device="cpu").eval()

# Values keep their size through every layer, so that every part of the network affects the output.
torch.manual_seed(0)
with torch.no_grad():
    for name, parameter in unet.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        elif name.endswith("weight"):
            parameter.normal_(mean=1, std=0.1)
        else:
            parameter.normal_(std=0.1)
        parameter.copy_(parameter.half())

(folder / "config.json").write_text(
    json.dumps({"_class_name": "UNet2DConditionModel", **config}, indent=2) + "\n"
)
halves = {name: value.half() for name, value in unet.state_dict().items()}
save_file(halves, folder / "diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
del halves

sample = torch.randn(1, 4, 64, 64)
context = torch.randn(1, 77, 768)
with torch.inference_mode():
    start = time.time()
    output = unet(sample, 500, context).sample
    seconds = time.time() - start
save_file(
    {"sample": sample, "context": context, "output": output.contiguous()},
    folder / "io.safetensors",
    metadata={"seconds": f"{seconds:.2f}", "threads": str(torch.get_num_threads())},
)
parameters = sum(parameter.numel() for parameter in unet.parameters())
print(f"{parameters} parameters, output std {output.std():.4f}, PyTorch took {seconds:.1f} s")
