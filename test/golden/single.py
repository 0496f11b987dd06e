"""Makes single-NAME.tar.br: tiny random models of Stable Diffusion as diffusers saves them and as single files.

    python3 single.py            # seeded; rewrites the archives next to this file; imports make.py and pipelines.py

Each archive has, compressed by brotli with a window that covers all of it:

folder/                   the pipeline, saved by diffusers in float16, without the tokenizer's vocabulary, which is CLIP's
single.safetensors        the same in the layout of ldm and sgm, with leftovers of training; diffusers reads it (see `check`)
single.ckpt               sd1 only: the same, saved by torch.save, with objects of other packages
unet.bin                  sd1 only: the denoising network of the folder, saved by torch.save
noise.safetensors         the noise [n, c, h, w]
image.png                 the image
expected.json             the ids of the prompts, and the error of every evaluation: t, noise, candidate, error

Expected values are computed in float64. Weights are multiples of a power of two in a small range, so that they are exact in float16 and compress well. The token
table is zero except for the tokens of the prompts, and the decoder of images is zero.
"""

import io
import json
import shutil
import sys
import tarfile
import tempfile
import types
from pathlib import Path

import brotli
import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import logging
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from make import HERE, noise_of
from pipelines import BETAS, pictures, save, short_side, to_input

PROMPTS = ["a photo of a cat", "a photo of a dog, a type of pet", ""]
TIMESTEPS = [20, 500, 900]
SIDE = 16
VOCABULARY = HERE.parent.parent / "weights" / "clip-tokenizer" / "merges.txt"
START, END = "<|startoftext|>", "<|endoftext|>"

BLOCKS = dict(down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"])
UNET = dict(in_channels=4, out_channels=4, layers_per_block=1, norm_num_groups=32, sample_size=SIDE // 2, block_out_channels=[32, 32])
MODELS = {
    # 8 heads everywhere, projections as 1x1 convolutions, CLIP-L's activation
    "sd1": dict(
        unet=dict(**BLOCKS, attention_head_dim=8, cross_attention_dim=32),
        text=[dict(hidden_size=32, num_attention_heads=1, num_hidden_layers=2, hidden_act="quick_gelu")], scheduler=lambda: DDIMScheduler(**BETAS),
    ),
    # heads of 64 channels, linear projections, OpenCLIP with a last layer that is not used
    "sd2": dict(
        unet=dict(**BLOCKS, attention_head_dim=[1, 1], cross_attention_dim=128, use_linear_projection=True),
        text=[dict(hidden_size=128, num_attention_heads=2, num_hidden_layers=1, hidden_act="gelu")], scheduler=lambda: DDIMScheduler(**BETAS, prediction_type="v_prediction"),
    ),
    # two text encoders, the projection of the second, size conditioning; v with zero terminal SNR
    "xl": dict(
        unet=dict(
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"], transformer_layers_per_block=[1, 2],
            attention_head_dim=[1, 1], cross_attention_dim=96, use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=40 + 6 * 8,
        ),
        text=[dict(hidden_size=32, num_attention_heads=1, num_hidden_layers=2, hidden_act="quick_gelu"), dict(hidden_size=64, num_attention_heads=1, num_hidden_layers=2, hidden_act="gelu", projection_dim=40)],
        scheduler=lambda: EulerDiscreteScheduler(**BETAS, prediction_type="v_prediction", rescale_betas_zero_snr=True),
    ),
}  # fmt: skip


def vocabulary():
    """Returns CLIP's vocabulary, whose ids follow from the merges."""
    merges = VOCABULARY.read_text().strip().split("\n")[1:]
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(c) for c in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges] + [START, END]
    return {token: i for i, token in enumerate(tokens)}, [tuple(merge.split(" ")) for merge in merges]


def randomise(model, seed):
    """Sets every matrix to three values, and every vector to seven."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            most = 3 if p.ndim == 1 else 1
            steps = torch.randint(-most, most + 1, p.shape, generator=g).float()
            if p.ndim == 1:
                p.copy_(steps / 16 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
            else:
                scale = (2 if "attn2" in name else 0.9) / (0.8 * (2.0 if "embedding" in name and "linear" not in name else p[0].numel() ** 0.5))
                p.copy_(steps * 2.0 ** round(torch.log2(torch.tensor(scale)).item()))
    return model.eval()


def keep_rows(encoder, ids):
    """Sets all rows of the token table to zero but those of some tokens."""
    table = (encoder.text_model if hasattr(encoder, "text_model") else encoder).embeddings.token_embedding.weight
    keep = torch.zeros(len(table), 1)
    keep[ids.flatten()] = 1
    with torch.no_grad():
        table.copy_(torch.where(keep > 0, table, 0.0))


# The layout of ldm and sgm.

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
OUTER = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip


def renamed(name, table):
    for old, new in table.items():
        if name.startswith(old + "."):
            return new + name[len(old) :]
    raise ValueError(name)


def unet_to_ldm(unet):
    layers, levels = unet.config.layers_per_block, len(unet.config.block_out_channels)
    table = dict(OUTER)
    for level in range(levels):
        for j in range(layers):
            block = level * (layers + 1) + j + 1
            table[f"down_blocks.{level}.resnets.{j}"] = f"input_blocks.{block}.0"
            table[f"down_blocks.{level}.attentions.{j}"] = f"input_blocks.{block}.1"
        table[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{(level + 1) * (layers + 1)}.0.op"
        for j in range(layers + 1):
            block = level * (layers + 1) + j
            table[f"up_blocks.{level}.resnets.{j}"] = f"output_blocks.{block}.0"
            table[f"up_blocks.{level}.attentions.{j}"] = f"output_blocks.{block}.1"
        after = 2 if unet.config.up_block_types[level].startswith("CrossAttn") else 1
        table[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{block}.{after}.conv"
    out = {}
    for name, tensor in unet.state_dict().items():
        new = renamed(name, table)
        if "resnets" in name:
            for part, old in RESNET.items():
                new = new.replace(f".{part}.", f".{old}.")
        out["model.diffusion_model." + new] = tensor
    return out


def vae_to_ldm(vae):
    levels = len(vae.config.block_out_channels)
    out = {}
    for name, tensor in vae.state_dict().items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        for i in range(levels):
            new = new.replace(f"down_blocks.{i}.resnets.", f"down.{i}.block.").replace(f"down_blocks.{i}.downsamplers.0.", f"down.{i}.downsample.")
            new = new.replace(f"up_blocks.{i}.resnets.", f"up.{levels - 1 - i}.block.").replace(f"up_blocks.{i}.upsamplers.0.", f"up.{levels - 1 - i}.upsample.")
        new = new.replace("mid_block.resnets.0.", "mid.block_1.").replace("mid_block.resnets.1.", "mid.block_2.").replace("mid_block.attentions.0.", "mid.attn_1.")
        if "attn_1" in new:
            for part, old in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
                new = new.replace(f"attn_1.{part}.", f"attn_1.{old}.")
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        out["first_stage_model." + new] = tensor
    return out


def clip_to_ldm(encoder, prefix):
    names = {("" if name.startswith("text_model.") else "text_model.") + name: tensor for name, tensor in encoder.state_dict().items()}
    return {prefix + name: tensor for name, tensor in names.items()}


def clip_to_open(encoder, prefix, unused_layer):
    """Returns OpenCLIP's names. `unused_layer` adds a last layer and a projection, as the files of 2.x have them."""
    names = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
    out = {
        "positional_embedding": names["embeddings.position_embedding.weight"], "token_embedding.weight": names["embeddings.token_embedding.weight"],
        "ln_final.weight": names["final_layer_norm.weight"], "ln_final.bias": names["final_layer_norm.bias"],
    }  # fmt: skip
    layers = encoder.config.num_hidden_layers
    for i in range(layers):
        layer = lambda part: names[f"encoder.layers.{i}.{part}"]  # noqa: E731
        for kind in ("weight", "bias"):
            block = {
                "ln_1": layer(f"layer_norm1.{kind}"), "ln_2": layer(f"layer_norm2.{kind}"), "mlp.c_fc": layer(f"mlp.fc1.{kind}"), "mlp.c_proj": layer(f"mlp.fc2.{kind}"),
                "attn.out_proj": layer(f"self_attn.out_proj.{kind}"),
            }  # fmt: skip
            out |= {f"transformer.resblocks.{i}.{part}.{kind}": tensor for part, tensor in block.items()}
            out[f"transformer.resblocks.{i}.attn.in_proj_{kind}"] = torch.cat([layer(f"self_attn.{p}_proj.{kind}") for p in "qkv"])
    if unused_layer:
        last = {k: v for k, v in out.items() if f"resblocks.{layers - 1}." in k}
        out |= {k.replace(f"resblocks.{layers - 1}.", f"resblocks.{layers}."): torch.zeros_like(v) for k, v in last.items()}
        out["text_projection"] = torch.zeros(encoder.config.hidden_size, encoder.config.hidden_size)
    if "text_projection.weight" in names:
        out["text_projection"] = names["text_projection.weight"].T.contiguous()
    out["logit_scale"] = torch.tensor(4.6)
    return {prefix + name: tensor for name, tensor in out.items()}


def single(name, pipe):
    out = unet_to_ldm(pipe.unet) | vae_to_ldm(pipe.vae)
    if name == "sd1":
        out |= clip_to_ldm(pipe.text_encoder, "cond_stage_model.transformer.")
        out["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    elif name == "sd2":
        out |= clip_to_open(pipe.text_encoder, "cond_stage_model.model.", True)
    else:
        out |= clip_to_ldm(pipe.text_encoder, "conditioner.embedders.0.transformer.")
        out |= clip_to_open(pipe.text_encoder_2, "conditioner.embedders.1.model.", False)
    out = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in out.items()}
    leftovers = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7), "alphas_cumprod": pipe.scheduler.alphas_cumprod.clone(), "betas": torch.rand(3)}
    if name == "xl":
        leftovers |= {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    return out | leftovers


def check(name, pipe, folder, path):
    """Checks that diffusers reads the single file as the folder's model."""
    if name == "sd2":  # diffusers leaves out only the layer with the number 23
        return
    loaded = type(pipe).from_single_file(str(path), config=str(folder), local_files_only=True, safety_checker=None)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        for key, tensor in getattr(pipe, part, torch.nn.Module()).state_dict().items():
            assert torch.equal(tensor, getattr(loaded, part).state_dict()[key].float()), (name, part, key)


def with_objects(state):
    """Returns a training checkpoint with objects of packages that are not installed where it is read."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    made = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = made
    for parent in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        sys.modules.setdefault(parent, types.ModuleType(parent))
    sys.modules[module.__name__] = module
    callback = made()
    callback.best_score = torch.tensor(0.5)
    return {"epoch": 3, "global_step": 470000, "callbacks": {made: {"monitor": "val/loss", "best": callback}}, "state_dict": state, "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}], "hyper_parameters": None}


def pack(name, folder):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name not in ("vocab.json", "tokenizer.json"):
                info = tarfile.TarInfo(str(file.relative_to(folder)))
                info.size = file.stat().st_size
                archive.addfile(info, file.open("rb"))
    out = HERE / f"single-{name}.tar.br"
    out.write_bytes(brotli.compress(data.getvalue(), quality=9, lgwin=24))
    print(out.name, out.stat().st_size // 1024, "KB")


@torch.no_grad()
def evaluate(pipe, encoders, picture, noise, dtype):
    """Returns the error of every evaluation in a precision."""
    parts = [pipe.vae, pipe.unet, *(encoder for encoder, _ in encoders)]
    for part in parts:
        part.to(dtype)
    noise = noise.to(dtype)
    latent = pipe.vae.encode(to_input(short_side(picture, SIDE)).to(dtype)).latent_dist.mean * pipe.vae.config.scaling_factor
    if len(encoders) == 2:
        states = [encoder(ids, output_hidden_states=True) for encoder, ids in encoders]
        contexts = torch.cat([out.hidden_states[-2] for out in states], -1)
        w, h = picture.size
        scale = SIDE / min(w, h)
        top, left = (round((int(x * scale) - SIDE) / 2) for x in (h, w))
        added = dict(text_embeds=states[1][0], time_ids=torch.tensor([[h, w, top, left, SIDE, SIDE]]).to(dtype).expand(len(PROMPTS), -1))
    else:
        contexts, added = encoders[0][0](encoders[0][1])[0], None
    evaluations = []
    for k, t in enumerate(TIMESTEPS):
        alpha_bar = pipe.scheduler.alphas_cumprod[t].to(dtype)
        xt = alpha_bar.sqrt() * latent + (1 - alpha_bar).sqrt() * noise[k : k + 1]
        out = pipe.unet(xt.expand(len(PROMPTS), -1, -1, -1), t, encoder_hidden_states=contexts, added_cond_kwargs=added).sample
        eps = noise_of(out, pipe.scheduler.config.prediction_type, xt, alpha_bar)
        errors = (eps - noise[k : k + 1]).square().mean((1, 2, 3)).tolist()
        evaluations += [dict(t=t, noise=k, candidate=c, error=error) for c, error in enumerate(errors)]
    return evaluations


@torch.no_grad()
def make(seed, name, unet, text, scheduler):
    vocab, merges = vocabulary()
    work = Path(tempfile.mkdtemp())
    words = [CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, pad_token=END if i == 0 and name != "sd2" else "!") for i in range(len(text))]
    encoders = []
    for i, (options, tokenizer) in enumerate(zip(text, words)):
        config = CLIPTextConfig(vocab_size=len(vocab), intermediate_size=2 * options["hidden_size"], bos_token_id=len(vocab) - 2, eos_token_id=len(vocab) - 1, pad_token_id=tokenizer.pad_token_id, **options)
        encoder = randomise((CLIPTextModelWithProjection if i == 1 else CLIPTextModel)(config), seed + 10 + i)
        ids = tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        keep_rows(encoder, ids)
        encoders.append((encoder, ids))
    vae = AutoencoderKL(latent_channels=4, norm_num_groups=32, block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, scaling_factor=0.13025 if len(text) == 2 else 0.18215)
    for p in randomise(vae, seed).decoder.parameters():
        p.zero_()
    parts = dict(vae=vae, unet=randomise(UNet2DConditionModel(**{**UNET, **unet}), seed + 1), scheduler=scheduler(), text_encoder=encoders[0][0], tokenizer=words[0])
    if len(text) == 2:
        pipe = StableDiffusionXLPipeline(**parts, text_encoder_2=encoders[1][0], tokenizer_2=words[1])
    else:
        pipe = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    half(pipe, work / "folder")
    state = single(name, pipe)
    save_file(state, work / "single.safetensors", metadata={"modelspec.prediction_type": "v"} if name == "sd2" else None)
    check(name, pipe, work / "folder", work / "single.safetensors")
    if name == "sd1":
        torch.save(with_objects(state), work / "single.ckpt")
        torch.save({key: tensor.half() for key, tensor in pipe.unet.state_dict().items()}, work / "unet.bin")
    [picture] = pictures(work / "images", [(SIDE * 3 // 2, SIDE + 5)], seed)
    picture.save(work / "image.png")
    shutil.rmtree(work / "images")
    noise = torch.randn(len(TIMESTEPS), 4, SIDE // 2, SIDE // 2, generator=torch.Generator().manual_seed(seed + 3))
    save_file({"noise": noise}, work / "noise.safetensors")
    rounded = evaluate(pipe, encoders, picture, noise, torch.float32)
    expected = evaluate(pipe, encoders, picture, noise, torch.float64)
    print(name, [round(e["error"], 4) for e in expected], "float32 differs by", max(abs(a["error"] / b["error"] - 1) for a, b in zip(rounded, expected)))
    (work / "expected.json").write_text(json.dumps(dict(prompts=PROMPTS, ids=[ids.tolist() for _, ids in encoders], side=SIDE, evaluations=expected)))
    pack(name, work)
    shutil.rmtree(work)


def half(pipe, folder):
    import copy

    parts = {name: copy.deepcopy(part).half() if isinstance(part, torch.nn.Module) else part for name, part in pipe.components.items()}
    options = {} if isinstance(pipe, StableDiffusionXLPipeline) else dict(requires_safety_checker=False)
    type(pipe)(**parts, **options).save_pretrained(folder)


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, parts) in enumerate(MODELS.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        make(700 + 20 * seed, name, **parts)
