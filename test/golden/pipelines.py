"""Makes pipeline-NAME/: whole tiny random pipelines, and what diffusers and transformers compute with them.

    python3 pipelines.py            # seeded; rewrites the folders next to this file; imports make.py

Each is a folder as people have them: saved by diffusers' save_pretrained in float16, one of them in shards and as the fp16
variant. Weights are rounded to float16 first, then everything runs in float32. Errors are always distances between noises.

images/            PNGs whose sizes differ from the model's.
noise.safetensors  the noise [n, c, h, w].
expected.json      one case per image: the latent of the preprocessed image (mean times scaling factor) and the published
                   staged elimination with the error of every evaluation, in the form of errors-TYPE.
prompts.csv        the prompts; two of them belong to the same class.
"""

import copy
import csv
import json
import shutil

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel, EulerDiscreteScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from make import HERE, LOSSES, noise_of, staged, write_json

PROMPTS = [
    ("a photo of a cat.", "cat", 0),
    ("a photo of a dog, a type of pet.", "dog", 1),
    ("a blurry photo of a dog", "dog", 1),
    ("an oil painting of ships in a storm", "ship", 2),
    ("a photo of a frog.", "frog", 3),
]  # fmt: skip
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
UNET = dict(in_channels=4, out_channels=4, layers_per_block=1, norm_num_groups=4, sample_size=8)
VAE = dict(latent_channels=4, norm_num_groups=2, down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, block_out_channels=[4, 8])

TEXT_MODELS = {
    # 1x1 projections, the same number of heads everywhere, quick_gelu, padding with the end token, f = 8 as published
    "sd1": dict(
        unet=dict(
            block_out_channels=[8, 16, 16], cross_attention_dim=24, attention_head_dim=2,
            down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        ),
        vae=dict(block_out_channels=[4, 4, 8, 8], down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4),
        text=dict(hidden_size=24, num_attention_heads=3, num_hidden_layers=2, hidden_act="quick_gelu"),
        scheduler=lambda: PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1), loss="l2",
    ),
    # linear projections, heads per block, gelu, padding with "!"; saved in shards, as the fp16 variant
    "sd2": dict(
        unet=dict(
            block_out_channels=[8, 24], cross_attention_dim=32, attention_head_dim=[2, 3], use_linear_projection=True,
            down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        ),
        vae={}, text=dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=3, hidden_act="gelu"), pad="!",
        scheduler=lambda: DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1), loss="l1", save=dict(variant="fp16", max_shard_size="60KB"),
    ),
    # the network predicts v
    "v": dict(
        unet=dict(
            block_out_channels=[8, 16], cross_attention_dim=32, attention_head_dim=[1, 2], use_linear_projection=True, upcast_attention=True,
            down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        ),
        vae={}, text=dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, hidden_act="gelu"), pad="!",
        scheduler=lambda: EulerDiscreteScheduler(**BETAS, prediction_type="v_prediction"), loss="l2",
    ),
}  # fmt: skip
SCHEDULE = ([4, 12], [3, 1])


def tokenizer(folder, pad):
    """Makes CLIP's tokenizer with the byte alphabet and a few merges; also returns the size of its vocabulary."""
    letters = sorted(ByteLevel.alphabet())
    merges = ["p h", "ph o", "t o</w>", "pho to</w>", "o f</w>", "d o", "do g</w>", "c a", "ca t</w>", "t h", "th e</w>", "i n", "in g</w>"]
    vocab = letters + [letter + "</w>" for letter in letters] + [m.replace(" ", "") for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    pairs = [tuple(m.split(" ")) for m in merges]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocab)}, merges=pairs, model_max_length=77, pad_token=pad), len(vocab)


def randomise(model, seed, attention=4):
    """Sets random norms and biases (never 0 or 1), and matrices that keep the scale of their inputs."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if "norm" in name and p.ndim == 1:
                p.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                p.copy_(0.1 * noise)
            elif name.endswith(("embedding.weight", "embedding_table.weight")):
                p.copy_(0.5 * noise)
            else:
                p.copy_((attention if "attn2" in name else 1.2) * noise / p[0].numel() ** 0.5)  # attn2 is larger, so that the prompt matters
        for p in model.parameters():  # buffers are not rounded, because diffusers recomputes them when it loads
            p.copy_(p.half().float())
    return model.eval()


def pictures(folder, sizes, seed):
    """Makes smooth random RGB images and writes them as PNG."""
    g = torch.Generator().manual_seed(seed)
    folder.mkdir()
    images = []
    for i, (w, h) in enumerate(sizes):
        coarse = torch.rand(1, 3, 6, 6, generator=g)
        pixels = torch.nn.functional.interpolate(coarse, (h, w), mode="bicubic").clamp(0, 1)[0].mul(255).round().byte()
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        image.save(folder / f"{i}.png")
        images.append(image)
    return images


def to_input(image):
    return torch.from_numpy(np.asarray(image.convert("RGB")).astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def centre(image, size):
    w, h = image.size
    left, top = round((w - size) / 2), round((h - size) / 2)
    return image.crop((left, top, left + size, top + size))


def short_side(image, size):
    """Applies torchvision's Resize(size) and CenterCrop(size)."""
    w, h = image.size
    to = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)
    return centre(image.resize(to, Image.BICUBIC), size)


def adm(image, size):
    while min(image.size) >= 2 * size:
        image = image.resize(tuple(x // 2 for x in image.size), Image.BOX)
    scale = size / min(image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), Image.BICUBIC)
    pixels = np.array(image)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return Image.fromarray(pixels[top : top + size, left : left + size])


def record(folder, pipe, inputs, predict, candidates, loss, noise):
    """Writes expected.json; predict(x_t, t, candidates, image) returns the network's first channels for every candidate."""
    cases = []
    save_file({"noise": noise}, folder / "noise.safetensors")
    for i, image in enumerate(inputs):
        latent = pipe.vae.encode(image).latent_dist.mean * pipe.vae.config.scaling_factor

        def error_of(t, k, alive):
            alpha_bar = pipe.scheduler.alphas_cumprod[t]
            xt = alpha_bar.sqrt() * latent + (1 - alpha_bar).sqrt() * noise[k : k + 1]
            eps = noise_of(predict(xt, t, alive, i), pipe.scheduler.config.prediction_type, xt, alpha_bar)
            return LOSSES[loss](eps, noise[k : k + 1].expand_as(eps), reduction="none").mean((1, 2, 3)).tolist()

        stages = staged(error_of, candidates, *SCHEDULE)
        cases.append(dict(image=i, loss=loss, n_samples=SCHEDULE[0], to_keep=SCHEDULE[1], latent=latent.flatten().tolist(), stages=stages, label=stages[-1]["survivors"][0]))
    (folder / "expected.json").write_text(json.dumps(cases).replace('{"image"', '\n{"image"') + "\n")
    print(folder.name, "winners", [c["label"] for c in cases], sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) // 1024, "KB")


def save(pipe, folder, **options):
    """Saves the pipeline as float16 files; the networks in memory do not change."""
    half = {name: copy.deepcopy(part).half() if isinstance(part, torch.nn.Module) else part for name, part in pipe.components.items()}
    made = type(pipe)(**half, requires_safety_checker=False) if isinstance(pipe, StableDiffusionPipeline) else type(pipe)(**half)
    made.save_pretrained(folder, **options)


@torch.no_grad()
def text_model(seed, name, unet, vae, text, scheduler, loss, pad="<|endoftext|>", save_options=None):
    folder = HERE / f"pipeline-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    words, size = tokenizer(folder / "tokenizer", pad)
    torch.manual_seed(seed)
    encoder = CLIPTextModel(CLIPTextConfig(vocab_size=size, intermediate_size=2 * text["hidden_size"], bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=words.pad_token_id, **text))
    pipe = StableDiffusionPipeline(
        vae=randomise(AutoencoderKL(**{**VAE, **vae}), seed), text_encoder=randomise(encoder, seed + 1), tokenizer=words,
        unet=randomise(UNet2DConditionModel(**UNET, **unet), seed + 2), scheduler=scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    save(pipe, folder, **(save_options or {}))
    with open(folder / "prompts.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("prompt", "classname", "classidx"), *PROMPTS])

    side = 8 * 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    inputs = [to_input(short_side(image, side)) for image in pictures(folder / "images", [(side * 3 // 2, side + 9), (side - 5, side + 20)], seed)]
    ids = words([p for p, _, _ in PROMPTS], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    contexts = pipe.text_encoder(ids)[0]
    noise = torch.randn(12, 4, 8, 8, generator=torch.Generator().manual_seed(seed + 3))

    def predict(xt, t, alive, _):
        return pipe.unet(xt.expand(len(alive), -1, -1, -1), t, encoder_hidden_states=contexts[alive]).sample

    record(folder, pipe, inputs, predict, len(PROMPTS), loss, noise)


@torch.no_grad()
def transformer(seed, name="dit", classes=5):
    folder = HERE / f"pipeline-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(seed)
    net = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=classes, norm_num_groups=32)
    pipe = DiTPipeline(transformer=randomise(net, seed), vae=randomise(AutoencoderKL(**VAE), seed + 1), scheduler=DDIMScheduler(beta_start=1e-4, beta_end=0.02))
    save(pipe, folder)
    index = json.loads((folder / "model_index.json").read_text())
    write_json(folder / "model_index.json", index | {"id2label": {str(i): f"class {i}, kind {i}" for i in range(classes)}})
    inputs = [to_input(adm(image, 16)) for image in pictures(folder / "images", [(70, 41), (19, 33)], seed)]
    noise = torch.randn(12, 4, 8, 8, generator=torch.Generator().manual_seed(seed + 3))

    def predict(xt, t, alive, _):
        n = len(alive)
        return pipe.transformer(xt.expand(n, -1, -1, -1), timestep=torch.full((n,), t), class_labels=torch.tensor(alive)).sample[:, :4]

    record(folder, pipe, inputs, predict, classes, "l2", noise)


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, parts) in enumerate(TEXT_MODELS.items()):
        options = dict(parts)
        text_model(400 + 10 * seed, name, save_options=options.pop("save", None), **options)
    transformer(300)
