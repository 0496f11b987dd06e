"""Creates a network of Stable Diffusion's full size with random weights, and its outputs in PyTorch.

    python3 bench/full-size.py FOLDER NETWORK

NETWORK is sd1-unet (860 M parameters), xl-unet (2.6 G), clip-l or clip-bigg (the text encoders of XL), or vae. FOLDER gets
config.json, the weights in float16 in files of at most 1.5 GB, and io.safetensors: inputs, and the outputs of the same
weights computed in f32. Needs torch, diffusers and transformers, and as much memory as the parameters in f16 and 4 GB more:
9 GB for xl-unet. The parameters are held in f16, and those of a layer become f32 while the layer runs.
"""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

SHARD = 1.5e9


def unet(**changes):
    from diffusers import UNet2DConditionModel

    config = dict(
        in_channels=4,
        out_channels=4,
        center_input_sample=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        layers_per_block=2,
        downsample_padding=1,
        mid_block_scale_factor=1,
        act_fn="silu",
        norm_num_groups=32,
        norm_eps=1e-5,
        **changes,
    )
    return UNet2DConditionModel, "UNet2DConditionModel", config


def sd1_unet():
    return unet(
        sample_size=64,
        down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        block_out_channels=[320, 640, 1280, 1280],
        cross_attention_dim=768,
        attention_head_dim=8,
    )


def xl_unet():
    return unet(
        sample_size=128,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        block_out_channels=[320, 640, 1280],
        cross_attention_dim=2048,
        attention_head_dim=[5, 10, 20],
        transformer_layers_per_block=[1, 2, 10],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def run_unet(model, config):
    side = config["sample_size"]
    io = {"sample": torch.randn(1, 4, side, side), "context": torch.randn(1, 77, config["cross_attention_dim"])}
    added = None
    if "addition_embed_type" in config:
        io |= {"pooled": torch.randn(1, 1280), "size": torch.tensor([[1200.0, 900.0, 40.0, 0.0, 1024.0, 1024.0]])}
        added = dict(text_embeds=io["pooled"], time_ids=io["size"])
    output = model(io["sample"], 500, io["context"], added_cond_kwargs=added).sample
    return io | {"output": output}


def clip(hidden_size, layers, heads, act, projecting):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModelWithProjection if projecting else CLIPTextModel
    config = dict(
        vocab_size=49408,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=act,
        projection_dim=hidden_size,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    return lambda **values: kind(CLIPTextConfig(**values)), kind.__name__, config


def run_clip(model, _):
    ids = torch.full((1, 77), 0)
    ids[0, 0], ids[0, 1:13], ids[0, 13] = 49406, torch.randint(49000, (12,)), 49407
    found = model(ids, output_hidden_states=True)
    io = {"ids": ids, "last": found.last_hidden_state, "penultimate": found.hidden_states[-2]}
    return io | ({"pooled": found.text_embeds} if hasattr(found, "text_embeds") else {})


def vae():
    from diffusers import AutoencoderKL

    config = dict(
        block_out_channels=[128, 256, 512, 512],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.13025,
    )
    return AutoencoderKL, "AutoencoderKL", config


def run_vae(model, config):
    io = {}
    for side in (768, 1024):
        # A picture rather than noise: smooth, with edges.
        coarse = torch.rand(1, 3, 24, 24)
        image = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").mul(2).sub(1).clamp(-1, 1)
        image[:, :, side // 3 : side // 2, side // 4 : side // 2] *= -1
        latent = model.encode(image).latent_dist.mean * config["scaling_factor"]
        io |= {f"image{side}": image, f"latent{side}": latent}
    return io


NETWORKS = {
    "sd1-unet": (sd1_unet, run_unet),
    "xl-unet": (xl_unet, run_unet),
    "clip-l": (lambda: clip(768, 12, 12, "quick_gelu", False), run_clip),
    "clip-bigg": (lambda: clip(1280, 32, 20, "gelu", True), run_clip),
    "vae": (vae, run_vae),
}


def save_shards(model, folder, stem):
    """Saves the parameters in several files."""
    shards, size = [[]], 0
    for name, value in model.state_dict().items():
        if size + 2 * value.numel() > SHARD:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += 2 * value.numel()
    index, state = {}, model.state_dict()
    for i, names in enumerate(shards):
        file = f"{stem}-{i + 1:05}-of-{len(shards):05}.safetensors"
        save_file({name: state[name].contiguous() for name in names}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def run_in_f32(model):
    """Makes every layer run with its parameters in f32, which are f16 before and after."""

    def convert(module, dtype):
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(dtype)

    for module in model.modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda module, _: convert(module, torch.float32))
            module.register_forward_hook(lambda module, *_: convert(module, torch.float16))


def main():
    folder, network = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    describe, run = NETWORKS[network]
    make, name, config = describe()
    with torch.device("meta"):
        model = make(**config).half()
    buffers = {name for name, _ in model.named_buffers()}
    model = model.to_empty(device="cpu").eval()

    # Values keep their size through every layer, so that every part of the network affects the output.
    torch.manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "embedding.weight" in key:
                parameter.normal_()
            elif parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif key.endswith("weight"):
                parameter.normal_(mean=1, std=0.1)
            else:
                parameter.normal_(std=0.1)
        for key, buffer in model.named_buffers():
            assert key.endswith("position_ids"), key
            buffer.copy_(torch.arange(buffer.numel()).reshape(buffer.shape))

    text = {"_class_name": name} if "CLIP" not in name else {"architectures": [name], "model_type": "clip_text_model"}
    (folder / "config.json").write_text(json.dumps({**text, **config}, indent=2) + "\n")
    save_shards(model, folder, "model" if "CLIP" in name else "diffusion_pytorch_model")
    run_in_f32(model)
    with torch.inference_mode():
        start = time.time()
        io = run(model, config)
        seconds = time.time() - start
    metadata = {"seconds": f"{seconds:.2f}", "threads": str(torch.get_num_threads())}
    save_file({key: value.contiguous() for key, value in io.items()}, folder / "io.safetensors", metadata=metadata)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{network}: {parameters} parameters, {len(buffers)} buffers, PyTorch took {seconds:.1f} s")


if __name__ == "__main__":
    main()
