"""Makes embedding/: textual inversions for pipeline-sd1, and what diffusers computes with them.

    python3 embedding.py            # seeded; rewrites embedding/; after pipelines.py

toy.safetensors   diffusers: one vector, by its word.
style.pt          A1111's and the original code's form: three vectors and a name, which is in lower case because diffusers 0.42 with
                  transformers 5 uses only the first vector of a word with capitals.
two.bin           diffusers' older form: two vectors in f16.
sdxl.safetensors  vectors for the two text encoders of SDXL.
expected.json     prompts with these words, their token ids, and the errors of evaluations.
"""

import json
import shutil

import torch
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import load_file, save_file

from lora import BASE, pipeline
from make import HERE, write_json
from pipelines import short_side, to_input

OUT = HERE / "embedding"
G = torch.Generator().manual_seed(23)
PROMPTS = ["a photo of a <cat-toy>", "easystyle, a photo of a cat", "a <two> dog in easystyle", "<two><cat-toy> of the <two>", "a photo of a cat."]


@torch.no_grad()
def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    rand = lambda *shape: 0.6 * torch.randn(shape, generator=G)
    save_file({"<cat-toy>": rand(24)}, OUT / "toy.safetensors")
    vectors = torch.nn.Parameter(rand(3, 24))
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "easystyle", "step": 500, "sd_checkpoint": None, "sd_checkpoint_name": None}, OUT / "style.pt")
    torch.save({"<two>": rand(2, 24).half()}, OUT / "two.bin")
    save_file({"clip_l": rand(2, 24), "clip_g": rand(2, 32)}, OUT / "sdxl.safetensors")

    pipe = pipeline()
    for file in ("toy.safetensors", "style.pt", "two.bin"):
        pipe.load_textual_inversion(str(OUT), weight_name=file)
    texts = [pipe.maybe_convert_prompt(prompt, pipe.tokenizer) for prompt in PROMPTS]
    ids = pipe.tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    contexts = pipe.text_encoder(ids)[0]
    side = 8 * 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    image = to_input(short_side(Image.open(BASE / "images/0.png"), side))
    noise = load_file(BASE / "noise.safetensors")["noise"]
    latent = pipe.vae.encode(image).latent_dist.mean * pipe.vae.config.scaling_factor
    found = []
    for k, t in enumerate((100, 600)):
        alpha_bar = pipe.scheduler.alphas_cumprod[t]
        xt = alpha_bar.sqrt() * latent + (1 - alpha_bar).sqrt() * noise[k : k + 1]
        eps = pipe.unet(xt.expand(len(PROMPTS), -1, -1, -1), t, encoder_hidden_states=contexts).sample
        found.append(dict(t=t, errors=(eps - noise[k : k + 1]).square().mean((1, 2, 3)).tolist()))
    write_json(OUT / "expected.json", dict(prompts=PROMPTS, ids=[row[:24].tolist() for row in ids], errors=found))
    print(texts)
    print(ids[:, :16])


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    main()
