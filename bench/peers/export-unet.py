"""Exports the network of a shipped model to ONNX, for onnxruntime.

    python3 bench/peers/export-unet.py weights/fashion-mnist BATCH out.onnx
"""

import os
import sys

import torch
from diffusers import UNet2DModel
from diffusers.utils import logging


class Prediction(torch.nn.Module):
    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, x, t, label):
        return self.unet(x, t, class_labels=label).sample


def main():
    model, batch, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    logging.set_verbosity_error()
    unet = UNet2DModel.from_pretrained(model, subfolder="unet").float().eval()
    c, side = unet.config.in_channels, unet.config.sample_size
    indices = torch.arange(batch) % 10
    with torch.inference_mode():
        torch.onnx.export(
            Prediction(unet), (torch.zeros(batch, c, side, side), indices, indices), out + ".part",
            input_names=["x", "t", "label"], output_names=["y"], opset_version=17, dynamo=False,
        )  # fmt: skip
    os.rename(out + ".part", out)


if __name__ == "__main__":
    main()
