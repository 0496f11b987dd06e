"""Makes pipeline-xl/ and pipeline-xl-v/: tiny random pipelines of Stable Diffusion XL, as pipelines.py makes others.

    python3 pipelines_xl.py         # seeded; rewrites the two folders next to this file; imports pipelines.py and make.py

The network is told the size of each image file, and where the centre crop begins in the resized image. expected.json also has
the numbers that it was told, `size`; the errors of the first candidate at the first stage's timesteps if it is told
another size, `told`; and those of no prompt, which diffusers encodes as zeros, `null`.
"""

import csv
import json
import shutil

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import logging
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from make import HERE, LOSSES, noise_of
from pipelines import BETAS, PROMPTS, UNET, VAE, pictures, randomise, record, save, short_side, to_input, tokenizer

# One prompt is cut, one names the end token, which is then the first of several.
XL_PROMPTS = [
    *PROMPTS[:3],
    ("a painting of " + "ships and " * 30 + "storms", "ship", 2),
    ("a frog <|endoftext|> and a pond", "frog", 3),
]
VECTOR = 12

MODELS = {
    # the first block without attention, more transformer blocks below, as the base model; the vector is that of the token
    # with the largest id (eos_token_id 2), as its file says
    "xl": dict(
        unet=dict(
            block_out_channels=[8, 16], attention_head_dim=[2, 4], transformer_layers_per_block=[1, 2],
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        ),
        texts=[
            dict(hidden_size=16, num_attention_heads=2, num_hidden_layers=3, hidden_act="quick_gelu"),
            dict(hidden_size=24, num_attention_heads=3, num_hidden_layers=2, hidden_act="gelu", eos_token_id=2),
        ],
        scheduler=lambda: EulerDiscreteScheduler(**BETAS, steps_offset=1), loss="l2",
    ),
    # the network predicts v down to pure noise; as many transformer blocks as a list per resnet says, as in SSD-1B
    "xl-v": dict(
        unet=dict(
            block_out_channels=[8, 16], attention_head_dim=[1, 2], act_fn="gelu",
            transformer_layers_per_block=[[1], [2]], reverse_transformer_layers_per_block=[[2, 1], 1],
            down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        ),
        texts=[
            dict(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, hidden_act="quick_gelu"),
            dict(hidden_size=16, num_attention_heads=4, num_hidden_layers=2, hidden_act="gelu"),
        ],
        scheduler=lambda: DDIMScheduler(**BETAS, prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False, set_alpha_to_one=False), loss="l1",
    ),
}  # fmt: skip


def crop_of(image, size):
    """Returns top and left of short_side's crop in the resized image."""
    w, h = image.size
    w, h = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)
    return [round((h - size) / 2), round((w - size) / 2)]


@torch.no_grad()
def model(seed, name, unet, texts, scheduler, loss):
    folder = HERE / f"pipeline-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    words, encoders = [], []
    for i, (text, pad, kind) in enumerate(zip(texts, ["<|endoftext|>", "!"], [CLIPTextModel, CLIPTextModelWithProjection])):
        made, size = tokenizer(folder / f"tokenizer{'_2' if i else ''}", pad)
        config = dict(vocab_size=size, intermediate_size=2 * text["hidden_size"], projection_dim=VECTOR, bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=made.pad_token_id)
        torch.manual_seed(seed + i)
        encoders.append(randomise(kind(CLIPTextConfig(**{**config, **text})), seed + 10 + i))
        words.append(made)
    width = sum(text["hidden_size"] for text in texts)
    added = dict(addition_embed_type="text_time", addition_time_embed_dim=6, projection_class_embeddings_input_dim=6 * 6 + VECTOR)
    net = UNet2DConditionModel(**UNET, cross_attention_dim=width, use_linear_projection=True, **added, **unet)
    pipe = StableDiffusionXLPipeline(
        vae=randomise(AutoencoderKL(**VAE, scaling_factor=0.13025, force_upcast=True), seed), text_encoder=encoders[0], text_encoder_2=encoders[1],
        tokenizer=words[0], tokenizer_2=words[1], unet=randomise(net, seed + 2, attention=2), scheduler=scheduler(), add_watermarker=False,
    )  # fmt: skip
    save(pipe, folder)
    with open(folder / "prompts.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("prompt", "classname", "classidx"), *XL_PROMPTS])

    images = pictures(folder / "images", [(24, 25), (11, 36)], seed)
    inputs = [to_input(short_side(image, 16)) for image in images]
    sizes = [[image.height, image.width, *crop_of(image, 16), 16, 16] for image in images]
    prompts = [p for p, _, _ in XL_PROMPTS]
    contexts, _, pooled, _ = pipe.encode_prompt(prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    noise = torch.randn(12, 4, 8, 8, generator=torch.Generator().manual_seed(seed + 3))

    def run(xt, t, context, vector, size):
        ids = torch.tensor([size] * len(context), dtype=torch.float32)
        added = dict(text_embeds=vector, time_ids=ids)
        return pipe.unet(xt.expand(len(context), -1, -1, -1), t, encoder_hidden_states=context, added_cond_kwargs=added).sample

    def predict(xt, t, alive, image):
        return run(xt, t, contexts[alive], pooled[alive], sizes[image])

    record(folder, pipe, inputs, predict, len(prompts), loss, noise)
    cases = json.loads((folder / "expected.json").read_text())
    for case, image, size in zip(cases, inputs, sizes):
        latent = pipe.vae.encode(image).latent_dist.mean * pipe.vae.config.scaling_factor

        def errors(context, vector, size):
            found = []
            for t, k in zip(case["stages"][0]["timesteps"], case["stages"][0]["noise"]):
                alpha_bar = pipe.scheduler.alphas_cumprod[t]
                xt = alpha_bar.sqrt() * latent + (1 - alpha_bar).sqrt() * noise[k : k + 1]
                eps = noise_of(run(xt, t, context, vector, size), pipe.scheduler.config.prediction_type, xt, alpha_bar)
                found.append(LOSSES[loss](eps, noise[k : k + 1], reduction="none").mean().item())
            return found

        other = [768, 512, 3, 40]
        case["size"] = size
        case["told"] = dict(size=other, errors=errors(contexts[:1], pooled[:1], [*other, 16, 16]))
        case["null"] = errors(torch.zeros_like(contexts[:1]), torch.zeros_like(pooled[:1]), size)
    (folder / "expected.json").write_text(json.dumps(cases).replace('{"image"', '\n{"image"') + "\n")


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, parts) in enumerate(MODELS.items()):
        model(500 + 20 * seed, name, **parts)
