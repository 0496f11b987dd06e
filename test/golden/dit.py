"""Makes dit-NAME/: tiny DiTs with random weights in diffusers' layout, and their outputs.

    python3 dit.py             # seeded; rewrites the folders next to this file

io.safetensors holds sample.K [n, c, h, w], timestep.K, class_labels.K and output.K. K = 0 and K = 1 are two inputs of
possibly different sizes. Weights are rounded to the stored dtype first, then the network runs in float32.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import DiTTransformer2DModel, Transformer2DModel
from safetensors.torch import save_file

HERE = Path(__file__).parent

CASES = {
    # DiT-XL/2 in small: patches of 2, learned variance
    "patch2": dict(kind=DiTTransformer2DModel, dtype=torch.float16, sizes=[8, 12], config=dict(
        num_attention_heads=2, attention_head_dim=12, out_channels=8, num_layers=3, sample_size=8, num_embeds_ada_norm=10)),
    # Transformer2DModel, the class of older DiT files: patches of 4, a norm with weights, no biases in attention, scaled positions
    "patch4": dict(kind=Transformer2DModel, dtype=torch.float32, sizes=[20, 20], config=dict(
        num_attention_heads=3, attention_head_dim=4, in_channels=4, num_layers=2, sample_size=20, patch_size=4, num_embeds_ada_norm=7,
        norm_type="ada_norm_zero", activation_fn="gelu", attention_bias=False, interpolation_scale=1.5, norm_eps=1e-3)),
}  # fmt: skip


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, case) in enumerate(CASES.items()):
        kind, config = case["kind"], case["config"]
        model = kind(**config).eval()
        g = torch.Generator().manual_seed(200 + seed)
        for key, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if "norm3" in key:
                p.copy_(0.3 * noise + (1.0 if key.endswith("weight") else 0.0))
            elif key.endswith("bias"):
                p.copy_(0.2 * noise)
            elif "embedding_table" in key:
                p.copy_(noise)
            else:
                p.copy_(noise / p[0].numel() ** 0.5)
        for p in model.parameters():  # the position embedding is not a parameter, so it is not rounded
            p.copy_(p.to(case["dtype"]).float())
        folder = HERE / f"dit-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "transformer").mkdir(parents=True)
        stored = {k: v for k, v in dict(model.config).items() if not k.startswith("_")}
        (folder / "transformer" / "config.json").write_text(json.dumps({"_class_name": kind.__name__, **stored}, indent=2) + "\n")
        save_file({k: v.to(case["dtype"]).contiguous() for k, v in model.state_dict().items()},
                  folder / "transformer" / "diffusion_pytorch_model.safetensors")
        io = {}
        for k, side in enumerate(case["sizes"]):
            sample = torch.randn(3, 4, side, side, generator=g)
            timestep, labels = torch.tensor([1, 480, 998]), torch.tensor([0, config["num_embeds_ada_norm"], 5])
            output = model(sample, timestep=timestep, class_labels=labels).sample
            io |= {f"sample.{k}": sample, f"timestep.{k}": timestep.float(), f"class_labels.{k}": labels.float(), f"output.{k}": output.contiguous()}
            print(f"dit-{name}: output {list(output.shape)} rms {output.square().mean().sqrt():.3f}")
        save_file(io, folder / "io.safetensors")


if __name__ == "__main__":
    main()
