"""Makes lora/: LoRA files for pipeline-sd1, and what diffusers and peft make of them.

    python3 lora.py                 # seeded; rewrites lora/; after pipelines.py

kohya.safetensors    names, alphas and f16 of kohya's scripts: linear layers, 1x1 and 3x3 convolutions, the text encoder. All alphas
                     are equal: diffusers 0.42 gives other ones of attention the most frequent value.
ldm.safetensors      the same tensors under the names of the original implementation's blocks.
diffusers.safetensors  saved by diffusers with peft's configuration in its metadata (alpha is not the rank).
peft/                saved by peft: adapter_model.safetensors and adapter_config.json; the UNet only.
old.safetensors      names of diffusers before 0.22 (attention processors).
cp.safetensors       a 3x3 convolution with a middle factor (lora_mid), which diffusers does not read; merged with einsum.
merged.safetensors   every changed tensor, after the name of its case, as fuse_lora leaves it in f32. `ldm` is only compared
                     here: it must be `kohya` in other names.
expected.json        the cases (files and weights) and the errors of evaluations with `both`.
"""

import json
import shutil

import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import logging
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from PIL import Image
from transformers.integrations import peft as peft_integration

from make import HERE, write_json
from pipelines import PROMPTS, short_side, to_input

peft_integration.MIN_PEFT_VERSION = "0.21.0"  # the newest on PyPI when these files were made; the methods used here are older

BASE, OUT = HERE / "pipeline-sd1", HERE / "lora"
G = torch.Generator().manual_seed(17)


def pipeline():
    return StableDiffusionPipeline.from_pretrained(BASE, torch_dtype=torch.float32, safety_checker=None, local_files_only=True)


def rand(*shape):
    return torch.randn(shape, generator=G) / shape[-1] ** 0.5


def factors(weight, rank):
    """Random factors in the shapes of kohya's scripts."""
    out, inputs, *kernel = weight.shape
    return rand(rank, inputs, *kernel), 0.3 * rand(out, rank, *([1] * len(kernel)))


def kohya(pipe):
    """Changes attention, feed-forward, projections, resnets' convolutions and the text encoder, with several ranks."""
    tensors, names = {}, {}
    for prefix, model, wanted in (
        ("lora_unet", pipe.unet, ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in")),
        ("lora_te", pipe.text_encoder, ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")),
    ):
        for i, (name, module) in enumerate(model.named_modules()):
            if not name.endswith(wanted) or not hasattr(module, "weight"):
                continue
            key, rank = f"{prefix}_{name.replace('.', '_')}", 2 + i % 3
            down, up = factors(module.weight, rank)
            tensors |= {f"{key}.lora_down.weight": down.half(), f"{key}.lora_up.weight": up.half(), f"{key}.alpha": torch.tensor(1.5).half()}
            names[key] = name
    return tensors, names


def ldm_name(name, layers=1, first_attends=False):
    """The original implementation's name of a layer of a UNet with `layers` resnets per block, by diffusers' name.

    `first_attends` says whether the first up block has attention.
    """
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    if name == "conv_in":
        return "input_blocks.0.0"
    place, rest = name.split(".", 1)
    if place == "mid_block":
        kind, i, rest = rest.split(".", 2)
        return f"middle_block.1.{rest}" if kind == "attentions" else f"middle_block.{2 * int(i)}.{resnet[rest]}"
    level, kind, i, rest = rest.split(".", 3)
    level, i, down = int(level), int(i), place == "down_blocks"
    block = f"input_blocks.{1 + level * (layers + 1) + i}" if down else f"output_blocks.{level * (layers + 1) + i}"
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * (layers + 1)}.0.op"
    if kind == "upsamplers":
        # The upsampler follows the last resnet of the block, and its attention if it has any.
        return f"output_blocks.{(level + 1) * (layers + 1) - 1}.{1 if level == 0 and not first_attends else 2}.conv"
    return f"{block}.0.{resnet[rest]}" if kind == "resnets" else f"{block}.1.{rest}"


def randomise_peft(model):
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_((0.3 if "lora_B" in name else 1) * rand(*p.shape))


def changed(pipe, base):
    found = {}
    for part in ("unet", "text_encoder"):
        now = {k.replace(".base_layer", ""): v for k, v in getattr(pipe, part).state_dict().items() if "lora_" not in k}
        assert set(now) == set(base[part]), set(now) ^ set(base[part])
        found |= {f"{part}/{k}": v.contiguous() for k, v in now.items() if not torch.equal(v, base[part][k])}
    return found


@torch.no_grad()
def errors(pipe):
    """Errors of all prompts at some levels, of the first image."""
    side = 8 * 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    image = to_input(short_side(Image.open(BASE / "images/0.png"), side))
    noise = load_file(BASE / "noise.safetensors")["noise"]
    latent = pipe.vae.encode(image).latent_dist.mean * pipe.vae.config.scaling_factor
    ids = pipe.tokenizer([p for p, _, _ in PROMPTS], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    contexts = pipe.text_encoder(ids)[0]
    found = []
    for k, t in enumerate((40, 350, 700, 950)):
        alpha_bar = pipe.scheduler.alphas_cumprod[t]
        xt = alpha_bar.sqrt() * latent + (1 - alpha_bar).sqrt() * noise[k : k + 1]
        eps = pipe.unet(xt.expand(len(PROMPTS), -1, -1, -1), t, encoder_hidden_states=contexts).sample
        found.append(dict(t=t, errors=(eps - noise[k : k + 1]).square().mean((1, 2, 3)).tolist()))
    return found


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "peft").mkdir(parents=True)
    pipe = pipeline()
    base = {part: {k: v.clone() for k, v in getattr(pipe, part).state_dict().items()} for part in ("unet", "text_encoder")}

    tensors, names = kohya(pipe)
    save_file(tensors, OUT / "kohya.safetensors")
    ldm = {}
    for key, tensor in tensors.items():
        layer, part = key.split(".", 1)
        unet = layer.startswith("lora_unet_")
        ldm[f"lora_unet_{ldm_name(names[layer]).replace('.', '_')}.{part}" if unet else key] = tensor
    save_file(ldm, OUT / "ldm.safetensors")

    unet_config = LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "to_v", "conv2", "proj_in"], rank_pattern={"mid_block.attentions.0.proj_in": 3}, alpha_pattern={"mid_block.attentions.0.proj_in": 5})
    text_config = LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "fc1"])
    pipe.unet.add_adapter(unet_config)
    pipe.text_encoder.add_adapter(text_config)
    randomise_peft(pipe.unet)
    randomise_peft(pipe.text_encoder)
    StableDiffusionPipeline.save_lora_weights(
        OUT, unet_lora_layers=get_peft_model_state_dict(pipe.unet), text_encoder_lora_layers=get_peft_model_state_dict(pipe.text_encoder), weight_name="diffusers.safetensors",
        unet_lora_adapter_metadata=unet_config.to_dict(), text_encoder_lora_adapter_metadata=text_config.to_dict(),
    )  # fmt: skip

    wrapped = get_peft_model(pipeline().unet, LoraConfig(r=3, lora_alpha=7, use_rslora=True, target_modules=["to_k", "to_out.0", "conv_out"], alpha_pattern={"conv_out": 2}))
    randomise_peft(wrapped)
    wrapped.save_pretrained(OUT / "peft")
    (OUT / "peft/README.md").unlink(missing_ok=True)

    old = {}
    for name, module in pipeline().unet.named_modules():
        if name.endswith((".to_q", ".to_out.0")):
            down, up = factors(module.weight, 2)
            layer, part = name.removesuffix(".0").rsplit(".", 1)
            old |= {f"unet.{layer}.processor.{part}_lora.down.weight": down, f"unet.{layer}.processor.{part}_lora.up.weight": up}
    save_file(old, OUT / "old.safetensors")

    target = "down_blocks.1.resnets.0.conv1"
    weight = base["unet"][f"{target}.weight"]
    out, inputs = weight.shape[:2]
    down, mid, up = rand(3, inputs, 1, 1), rand(3, 3, 3, 3), rand(out, 3, 1, 1)
    key = f"lora_unet_{target.replace('.', '_')}"
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_mid.weight": mid, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(2.0)}, OUT / "cp.safetensors")
    delta = torch.einsum("om,mnhw,ni->oihw", up[:, :, 0, 0].double(), mid.double(), down[:, :, 0, 0].double())
    merged = {f"cp/unet/{target}.weight": (weight.double() + 0.9 * 2 / 3 * delta).float()}

    cases = {
        "kohya": [("kohya.safetensors", 1.0)], "ldm": [("ldm.safetensors", 0.7)], "diffusers": [("diffusers.safetensors", 1.0)],
        "old": [("old.safetensors", 1.0)], "both": [("kohya.safetensors", 0.8), ("diffusers.safetensors", -0.5)],
    }  # fmt: skip
    expected, results = None, {}
    for case, loras in cases.items():
        one = pipeline()
        for i, (file, _) in enumerate(loras):
            if case == "ldm":
                state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(str(OUT / file), unet_config=one.unet.config)
                one.load_lora_into_unet(state, network_alphas=alphas, unet=one.unet, adapter_name=str(i))
                one.load_lora_into_text_encoder(state, network_alphas=alphas, text_encoder=one.text_encoder, adapter_name=str(i))
            else:
                one.load_lora_weights(str(OUT), weight_name=file, adapter_name=str(i))
        one.set_adapters([str(i) for i in range(len(loras))], [w for _, w in loras])
        one.fuse_lora()
        if case == "both":
            expected = errors(one)
        results[case] = changed(one, base)
    for k, v in results["ldm"].items():
        part, name = k.split("/")
        assert torch.allclose(v, base[part][name] + 0.7 * (results["kohya"][k] - base[part][name]), atol=1e-6), k
    assert set(results["kohya"]) - set(results["ldm"]) <= {"unet/up_blocks.0.upsamplers.0.conv.weight"}  # diffusers loses it
    merged |= {f"{case}/{k}": v for case in ("old", "both") for k, v in results[case].items()}
    model = PeftModel.from_pretrained(pipeline().unet, str(OUT / "peft")).merge_and_unload()
    merged |= {f"peft/unet/{k}": v.contiguous() for k, v in model.state_dict().items() if not torch.equal(v, base["unet"][k])}
    cases |= {"peft": [("peft/adapter_model.safetensors", 1.0)], "cp": [("cp.safetensors", 0.9)]}
    save_file(merged, OUT / "merged.safetensors")
    write_json(OUT / "expected.json", dict(cases=cases, both=expected))
    print({case: sum(k.startswith(case + "/") for k in merged) for case in cases}, sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file()) // 1024, "KB")


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    main()
