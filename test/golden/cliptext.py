"""Makes cliptext-NAME/: tiny CLIPTextModels of transformers with random weights, and their outputs.

    python3 cliptext.py      # seeded; needs cliptokenizer/, made by cliptokenizer.py

config.json, model.safetensors  the model; weights are rounded to the stored dtype first, then the network runs in float32.
io.safetensors                  ids [n, tokens] and last_hidden_state [n, tokens, hidden].

cliptext-prompts/ instead holds two folders of a pipeline: tokenizer/ (only its small files; the vocabulary is that of
cliptokenizer/) and text_encoder/. prompts.json has the prompts, io.safetensors their last hidden states.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent

MODELS = {
    # Stable Diffusion 1.x in small: the published tensor names and buffer, float16, heads of dimension 10
    "quick-gelu": dict(vocab_size=50, hidden_size=40, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=77,
                       hidden_act="quick_gelu", names="text_model.", buffer=True, dtype=torch.float16, padding=49),
    # Stable Diffusion 2.x: gelu, another depth, padding with 0, heads of dimension 33, the tensor names of transformers 5
    "gelu": dict(vocab_size=50, hidden_size=66, intermediate_size=100, num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=20,
                 hidden_act="gelu", layer_norm_eps=1e-6, names="", buffer=False, dtype=torch.bfloat16, padding=0),
    # gelu approximated by tanh, three heads of dimension 5, few positions
    "gelu-new": dict(vocab_size=30, hidden_size=15, intermediate_size=20, num_hidden_layers=1, num_attention_heads=3, max_position_embeddings=7,
                     hidden_act="gelu_new", names="text_model.", buffer=False, dtype=torch.float32, padding=29),
}  # fmt: skip

PROMPTS = ["a photo of a cat", "a photo of a dog!", "", "A Dog's bowl, 2 of them", " ".join(["the"] * 90)]


def make(seed, dtype, **config):
    model = CLIPTextModel(CLIPTextConfig(bos_token_id=0, eos_token_id=1, pad_token_id=0, **config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name:
                p.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                p.copy_(0.2 * noise)
            elif "embedding" in name:
                p.copy_(noise)
            else:  # q and k are large enough to make attention sharp
                p.copy_(noise * (2 if "q_proj" in name or "k_proj" in name else 1) / p[0].numel() ** 0.5)
    return model.to(dtype).float()


def save(model, folder, dtype, names="text_model.", buffer=False):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state = {names + k.removeprefix("text_model."): v.to(dtype).contiguous() for k, v in model.state_dict().items()}
    if buffer:
        state[names + "embeddings.position_ids"] = torch.arange(model.config.max_position_embeddings)[None]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config = model.config.to_dict() | {"architectures": ["CLIPTextModel"], "dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main():
    for seed, (name, spec) in enumerate(MODELS.items()):
        how = {key: spec.pop(key) for key in ("names", "buffer", "dtype", "padding")}
        padding = how.pop("padding")
        model = make(seed, how["dtype"], **spec)
        folder = HERE / f"cliptext-{name}"
        save(model, folder, **how)
        tokens = spec["max_position_embeddings"]
        generator = torch.Generator().manual_seed(100 + seed)
        ids = torch.randint(0, spec["vocab_size"], (3, tokens), generator=generator)
        for row, length in zip(ids, (tokens, tokens // 2, 2)):
            row[length:] = padding
        with torch.no_grad():
            y = model(input_ids=ids).last_hidden_state
        save_file({"ids": ids, "last_hidden_state": y.contiguous()}, folder / "io.safetensors")

    folder = HERE / "cliptext-prompts"
    vocabulary = HERE / "cliptokenizer"
    size = len(json.loads((vocabulary / "vocab.json").read_text(encoding="utf-8")))
    model = make(9, torch.float16, vocab_size=size, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4)
    shutil.rmtree(folder, ignore_errors=True)
    save(model, folder / "text_encoder", torch.float16)
    (folder / "tokenizer").mkdir()
    files = json.loads((vocabulary / "expected.json").read_text(encoding="utf-8"))["cases"]["sd2"]["files"]
    for file, value in files.items():
        (folder / "tokenizer" / file).write_text(json.dumps(value, indent=2) + "\n")
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(vocabulary / file, folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    for file in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / file).unlink()
    ids = tokenizer(PROMPTS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        y = model(input_ids=ids).last_hidden_state
    save_file({"last_hidden_state": y.contiguous()}, folder / "io.safetensors")
    (folder / "prompts.json").write_text(json.dumps(PROMPTS) + "\n")


main()
