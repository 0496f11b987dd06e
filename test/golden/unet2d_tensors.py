"""Makes unet2d-tensors.json: configurations of diffusers' UNet2DModel, each with the names and shapes of its state dict.

    python3 unet2d_tensors.py [--random N SEED]   # --random: prints N random configurations instead
"""

import json
import random
import sys
from pathlib import Path

import diffusers
import torch

DOWN = ["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
UP = ["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]

# Small widths; the comment on each case names what it tests.
CASES = [
    # conv_shortcut in both halves, attention in the middle only
    dict(block_out_channels=[8, 16], down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2,
         layers_per_block=1, norm_num_groups=4, sample_size=8),
    # a class table
    dict(block_out_channels=[8, 16, 16], down_block_types=["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
         up_block_types=["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"], norm_num_groups=8, num_class_embeds=10,
         in_channels=1, out_channels=1, attention_head_dim=4),
    # a class table is ignored if class_embed_type is timestep
    dict(block_out_channels=[8, 8], down_block_types=["AttnDownBlock2D", "DownBlock2D"],
         up_block_types=["UpBlock2D", "AttnUpBlock2D"], norm_num_groups=2, class_embed_type="timestep",
         num_class_embeds=7, attention_head_dim=None),
    # class_embed_type identity has no tensors; fourier time
    dict(block_out_channels=[4, 8], down_block_types=["DownBlock2D", "AttnDownBlock2D"],
         up_block_types=["AttnUpBlock2D", "UpBlock2D"], norm_num_groups=4, class_embed_type="identity",
         time_embedding_type="fourier"),
    # scale_shift: doubled projections, no norm in the middle's attention
    dict(block_out_channels=[8, 16], down_block_types=["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
         up_block_types=["AttnUpBlock2D", "ResnetUpsampleBlock2D"], norm_num_groups=4, layers_per_block=1,
         resnet_time_scale_shift="scale_shift", downsample_type="resnet", upsample_type="resnet"),
    # scale_shift with attn_norm_num_groups: the norm is back
    dict(block_out_channels=[8, 16], down_block_types=["AttnDownBlock2D", "DownBlock2D"],
         up_block_types=["UpBlock2D", "AttnUpBlock2D"], norm_num_groups=4, layers_per_block=1,
         resnet_time_scale_shift="scale_shift", attn_norm_num_groups=2, downsample_type="resnet",
         upsample_type="resnet", time_embedding_dim=24),
    # no attention in the middle
    dict(block_out_channels=[8, 12], down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2,
         norm_num_groups=4, add_attention=False, layers_per_block=1),
    # no middle block
    dict(block_out_channels=[8, 12, 20], down_block_types=DOWN, up_block_types=UP, norm_num_groups=4,
         mid_block_type=None, layers_per_block=1, attention_head_dim=4),
    # a head dimension that does not divide the channels
    dict(block_out_channels=[12, 20], down_block_types=["AttnDownBlock2D"] * 2, up_block_types=["AttnUpBlock2D"] * 2,
         norm_num_groups=4, attention_head_dim=8, layers_per_block=1, downsample_padding=0, act_fn="gelu"),
    # one level: no resampling
    dict(block_out_channels=[8], down_block_types=["AttnDownBlock2D"], up_block_types=["AttnUpBlock2D"],
         norm_num_groups=8, layers_per_block=3, num_class_embeds=1),
]


def random_config(rng):
    levels = rng.randint(1, 4)
    groups = rng.choice([1, 2, 4])
    class_embed_type = rng.choice([None, None, "timestep", "identity"])
    config = dict(
        in_channels=rng.randint(1, 4), out_channels=rng.randint(1, 4),
        block_out_channels=[groups * 2 * rng.randint(1, 6) for _ in range(levels)],
        down_block_types=[rng.choice(DOWN) for _ in range(levels)],
        up_block_types=[rng.choice(UP) for _ in range(levels)],
        mid_block_type=rng.choice(["UNetMidBlock2D", "UNetMidBlock2D", None]),
        layers_per_block=rng.randint(1, 3), norm_num_groups=groups,
        attention_head_dim=rng.choice([None, 1, 2]), add_attention=rng.random() < 0.7,
        attn_norm_num_groups=rng.choice([None, None, 1, 2]),
        resnet_time_scale_shift=rng.choice(["default", "scale_shift"]),
        downsample_type=rng.choice(["conv", "resnet"]), upsample_type=rng.choice(["conv", "resnet"]),
        time_embedding_type=rng.choice(["positional", "fourier"]),
        time_embedding_dim=rng.choice([None, None, 10]),
        class_embed_type=class_embed_type, num_class_embeds=rng.choice([None, 1, 10]),
        act_fn=rng.choice(["silu", "swish", "mish", "gelu", "relu"]),
    )
    for key in list(config):  # some keys are left out, to test the defaults
        if key in ("in_channels", "out_channels", "add_attention", "mid_block_type", "downsample_type",
                   "upsample_type", "act_fn", "layers_per_block") and rng.random() < 0.3:
            del config[key]
    return config


def case(config):
    with torch.device("meta"):
        model = diffusers.UNet2DModel(**config)
    tensors = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {"config": {"_class_name": "UNet2DModel", **config}, "tensors": tensors}


def main():
    if sys.argv[1:2] == ["--random"]:
        rng = random.Random(int(sys.argv[3]))
        print(json.dumps([case(random_config(rng)) for _ in range(int(sys.argv[2]))]))
        return
    cases = [case(config) for config in CASES]
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    head = json.dumps(f"diffusers {diffusers.__version__}")
    Path(__file__).with_name("unet2d-tensors.json").write_text(f'{{"madeWith":{head},"cases":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
