"""Makes vae-sd/large.safetensors: the latent of a larger image, for tests that split values into ranges of channels.

    python3 vae_large.py       # after vae.py

The image [1, 3, 144, 136] is not stored: pixel (c, y, x) is sin(0.07 (x + 2 y) + c), computed in float64. `latent` is the mean
times scaling_factor, computed in float64.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

folder = Path(__file__).parent / "vae-sd"
torch.set_num_threads(1)
model = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float64).eval()
c, y, x = torch.meshgrid(torch.arange(3), torch.arange(144), torch.arange(136), indexing="ij")
image = torch.sin(0.07 * (x + 2 * y).double() + c).float().double()[None]
with torch.no_grad():
    latent = model.encode(image).latent_dist.mean * model.config.scaling_factor
save_file({"latent": latent.float().contiguous()}, folder / "large.safetensors")
print(list(latent.shape), latent.std())
