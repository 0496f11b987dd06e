"""Makes adapters-xl/: a LoRA and a textual inversion for pipeline-xl, and what diffusers computes with both.

    python3 adapters_xl.py          # seeded; rewrites adapters-xl/; after pipelines_xl.py

lora.safetensors       kohya's names for both text encoders, and those of the original implementation for the UNet.
embedding.safetensors  two vectors for each text encoder.
expected.json          prompts, and the errors of evaluations of the first image.
"""

import shutil

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import load_file, save_file

from lora import ldm_name
from make import HERE, write_json
from pipelines import short_side, to_input
from pipelines_xl import crop_of

BASE, OUT = HERE / "pipeline-xl", HERE / "adapters-xl"
PROMPTS = ["a photo of a <toy>", "a dog", "<toy> and the photo of ships"]
UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "upsamplers.0.conv", "downsamplers.0.conv")
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
G = torch.Generator().manual_seed(29)


def rand(*shape):
    return torch.randn(shape, generator=G) / shape[-1] ** 0.5


@torch.no_grad()
def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    pipe = StableDiffusionXLPipeline.from_pretrained(BASE, torch_dtype=torch.float32, local_files_only=True, add_watermarker=False)
    tensors = {}
    for prefix, model, layers in (("lora_unet", pipe.unet, UNET_LAYERS), ("lora_te1", pipe.text_encoder, TEXT_LAYERS), ("lora_te2", pipe.text_encoder_2, TEXT_LAYERS)):
        for name, module in model.named_modules():
            if not name.endswith(layers) or not hasattr(module, "weight"):
                continue
            # Files have the prefix text_model, which transformers 5 leaves out of its own names.
            own = ldm_name(name, first_attends=True) if prefix == "lora_unet" else f"text_model.{name.removeprefix('text_model.')}"
            out, inputs, *kernel = module.weight.shape
            key = f"{prefix}_{own.replace('.', '_')}"
            down, up = rand(2, inputs, *kernel), 0.4 * rand(out, 2, *([1] * len(kernel)))
            tensors |= {f"{key}.lora_down.weight": down.half(), f"{key}.lora_up.weight": up.half(), f"{key}.alpha": torch.tensor(1.0)}
    save_file(tensors, OUT / "lora.safetensors")
    vectors = {"clip_l": 0.6 * torch.randn(2, 16, generator=G), "clip_g": 0.6 * torch.randn(2, 24, generator=G)}
    save_file(vectors, OUT / "embedding.safetensors")

    pipe.load_textual_inversion(vectors["clip_l"], token="<toy>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    pipe.load_textual_inversion(vectors["clip_g"], token="<toy>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (pipe.unet, pipe.text_encoder, pipe.text_encoder_2)]
    pipe.load_lora_weights(str(OUT), weight_name="lora.safetensors", adapter_name="a")
    pipe.set_adapters(["a"], [0.9])
    pipe.fuse_lora()
    for model, old in zip((pipe.unet, pipe.text_encoder, pipe.text_encoder_2), before):
        now = {k.replace(".base_layer", ""): v for k, v in model.state_dict().items() if "lora_" not in k}
        print(type(model).__name__, sum(not torch.equal(now[k], v) for k, v in old.items()), "changed")
    print(len(tensors) // 3, "layers in the file")

    # With eos_token_id 2, transformers takes the vector of the token with the largest id. That is a new word's, although
    # CLIP was trained with the end token's.
    pipe.text_encoder_2.text_model.eos_token_id = pipe.tokenizer_2.eos_token_id
    image = Image.open(BASE / "images/0.png")
    latent = pipe.vae.encode(to_input(short_side(image, 16))).latent_dist.mean * pipe.vae.config.scaling_factor
    ids = torch.tensor([[image.height, image.width, *crop_of(image, 16), 16, 16]] * len(PROMPTS), dtype=torch.float32)
    contexts, _, pooled, _ = pipe.encode_prompt(PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    noise = load_file(BASE / "noise.safetensors")["noise"]
    found = []
    for k, t in enumerate((80, 500, 900)):
        alpha_bar = pipe.scheduler.alphas_cumprod[t]
        xt = alpha_bar.sqrt() * latent + (1 - alpha_bar).sqrt() * noise[k : k + 1]
        eps = pipe.unet(xt.expand(len(PROMPTS), -1, -1, -1), t, encoder_hidden_states=contexts, added_cond_kwargs=dict(text_embeds=pooled, time_ids=ids)).sample
        found.append(dict(t=t, errors=(eps - noise[k : k + 1]).square().mean((1, 2, 3)).tolist()))
    write_json(OUT / "expected.json", dict(prompts=PROMPTS, weight=0.9, size=ids[0].tolist(), errors=found))
    print(sum(f.stat().st_size for f in OUT.iterdir()) // 1024, "KB", found)


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    main()
