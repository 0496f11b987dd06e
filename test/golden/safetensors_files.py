"""Makes safetensors-python.safetensors (every kind of tensor that a model file may hold, written by the format's own
library) and half.json (hashes of numpy's half-precision conversions).

    python3 safetensors_files.py
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch

here = Path(__file__).parent


def sha256(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def main():
    halves = [0.0, -0.0, 1.0, -2.5, 65504.0, 2.0**-24, 2.0**-14, float("inf")]
    tensors = {
        "f32": torch.tensor([[1.5, -0.1], [3e38, 1e-45]]),
        "f16": torch.tensor(halves, dtype=torch.float16),
        "bf16": torch.tensor([0.0, 1.0, -2.5, 3e38, 2.0**-133, -float("inf")], dtype=torch.bfloat16),
        "bf16.small": torch.tensor([[[0.1]], [[-3.0]]], dtype=torch.bfloat16),
        "i64": torch.tensor([1, -2, 3]),
        "u8": torch.tensor([[1, 2, 255]], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "f64": torch.tensor([0.5], dtype=torch.float64),
        "scalar": torch.tensor(7.25),
        "empty": torch.zeros(2, 0, 3),
        "naïve \"name\"\n/é": torch.tensor([4.0]),
    }
    safetensors.torch.save_file(
        tensors, here / "safetensors-python.safetensors", metadata={"format": "pt", "made with": "Python"}
    )

    every_half = np.arange(65536, dtype=np.uint16).view(np.float16)
    every_half = every_half[~np.isnan(every_half)]
    bits = np.arange(0, 2**32, 9973, dtype=np.uint64).astype(np.uint32)
    edges = np.array([0x33000000, 0x33000001, 0x387FFFFF, 0x38800000, 0x477FEFFF, 0x477FF000, 0x7F800000], np.uint32)
    floats = np.concatenate([bits, edges, edges | np.uint32(0x80000000)]).view(np.float32)
    floats = floats[~np.isnan(floats)]
    with np.errstate(over="ignore"):
        rounded = floats.astype(np.float16)
    goldens = {
        "madeWith": f"numpy {np.__version__}, safetensors {safetensors.__version__}",
        "f16ToF32": sha256(every_half.astype(np.float32)),
        "stride": 9973,
        "edges": [int(e) for e in edges],
        "f32ToF16": sha256(rounded),
        "count": len(floats),
    }
    (here / "half.json").write_text(json.dumps(goldens, indent=2) + "\n")


if __name__ == "__main__":
    main()
