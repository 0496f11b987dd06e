"""Makes crop/: images, and the results of ADM's crop with Pillow (Dhariwal and Nichol 2021; DiT uses the same crop).

    python3 crop.py            # seeded; rewrites crop/

In Pillow's terms, the crop does three things. It halves the image with BOX while the short side is at least twice the
target. It resizes the short side to the target with BICUBIC (sides by Python's round). It cuts out the centre, with the
corner rounded down.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent

CASES = [  # mode, (width, height) of the input, target side
    ("RGB", (150, 97), 32),  # halved once, to an odd width
    ("RGB", (131, 263), 16),  # halved three times; a tall image with odd sides
    ("L", (64, 64), 32),  # halved to exactly the target size
    ("RGB", (21, 31), 32),  # enlarged
    ("L", (33, 45), 28),  # resized, but not halved
    ("RGB", (90, 63), 32),  # slightly too small to be halved
]  # fmt: skip


def adm_crop(image, side):
    while min(image.size) // side >= 2:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    top, left = (image.height - side) // 2, (image.width - side) // 2
    return image.crop((left, top, left + side, top + side))


def main():
    folder = HERE / "crop"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rng = np.random.default_rng(11)
    listed = []
    for i, (mode, (w, h), side) in enumerate(CASES):
        wave = np.sin(np.arange(w)[None] / 2.9 + i) * np.cos(np.arange(h)[:, None] / 5.3) * 90 + 128
        shape = (h, w, 3) if mode == "RGB" else (h, w)
        pixels = (wave[..., None] if mode == "RGB" else wave) + rng.normal(0, 40, shape)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(folder / f"{i}-in.png")
        adm_crop(image, side).save(folder / f"{i}-out.png")
        listed.append({"in": f"{i}-in.png", "out": f"{i}-out.png", "side": side})
    (folder / "cases.json").write_text(json.dumps(listed, indent=1) + "\n")
    print(f"crop: {len(listed)} cases")


if __name__ == "__main__":
    main()
