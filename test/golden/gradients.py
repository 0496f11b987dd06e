"""Makes gradients/: derivatives of the networks next to this file, by torch's autograd.

    python3 gradients.py       # after make.py and edm.py; rewrites gradients/

parameters.json            in double precision, for each network unet2d-NAME: for every parameter, the norm of
                           d mean(output^2) / d parameter and its product with cos(1), cos(2), .. in the order of the
                           parameter. The inputs are those of io.safetensors. edm-song has the same for the sum of the three
                           errors whose gradients are in edm/song.json.
errors-TYPE.safetensors    for each model errors-TYPE: evaluations `rows` (image, candidate or -1, t, noise) and, for the
                           losses l2, l1 and huber, `error` and `gradient` = d error / d x0 (the noise is held fixed). For
                           the noised images `xt` of the same rows: the predicted noise `eps_hat`, and `pulled`, the product
                           of its transposed Jacobian with the images.
"""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
OUT = HERE / "gradients"
NETWORKS = ["table", "ddpm"]
ROWS = [(0, 0, 3, 0), (0, 7, 250, 1), (1, 4, 500, 2), (1, -1, 740, 3), (2, 9, 995, 4)]
LOSSES = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


def load(folder):
    config = json.loads((folder / "unet" / "config.json").read_text())
    model = UNet2DModel.from_config(config).eval()
    model.load_state_dict({k: v.float() for k, v in load_file(folder / "unet" / "diffusion_pytorch_model.safetensors").items()})
    return model


def measures(named):
    found = {}
    for key, p in named:
        if p.grad is not None:
            g = p.grad.double().flatten()
            found[key] = [float(f"{v:.8g}") for v in (g.norm(), g @ torch.arange(1, g.numel() + 1).double().cos())]
    return found


def edm_song():
    golden = json.loads((HERE / "edm" / "song.json").read_text())
    edm = runpy.run_path(str(HERE / "edm.py"))
    net = edm["network"](edm["CASES"]["song"]["config"])
    side, sigmas = golden["config"]["img_resolution"], torch.from_numpy(np.linspace(1e-4, 3, 126)[:-1])
    x = torch.tensor(golden["image"]).reshape(side, side, 3).permute(2, 0, 1).double() / 127.5 - 1
    noise = torch.from_numpy(((2 * edm["uniform"]("noise", 125 * side * side * 3) - 1) * 3**0.5).astype(np.float32)).double()
    at, label = ([each[key] for each in golden["gradients"]] for key in ("sigma", "label"))
    sigma = sigmas[at].view(-1, 1, 1, 1)
    denoised = net(x + sigma * noise.reshape(125, 3, side, side)[at], sigma.flatten(), torch.eye(golden["config"]["label_dim"]).double()[label])
    errors = ((denoised - x) ** 2).mean((1, 2, 3))
    for error, k, c in zip(errors.tolist(), at, label):
        assert abs(error / golden["errors"][c][k] - 1) < 1e-7
    errors.sum().backward()
    return measures(net.named_parameters())


def parameters():
    found = {}
    for name in NETWORKS:
        model, io = load(HERE / f"unet2d-{name}"), load_file(HERE / f"unet2d-{name}" / "io.safetensors")
        inputs = {key: value.double() if value.is_floating_point() else value for key, value in io.items()}
        output = model.double()(inputs["sample"], inputs["timestep"], class_labels=inputs.get("class_labels")).sample
        output.square().mean().backward()
        found[name] = measures(model.named_parameters())
        print(f"unet2d-{name}: {len(found[name])} parameters")
    found["edm-song"] = edm_song()
    print(f"edm-song: {len(found['edm-song'])} parameters")
    (OUT / "parameters.json").write_text(json.dumps(found).replace('}, "', '},\n"') + "\n")


def errors(kind):
    folder = HERE / f"errors-{kind}"
    model, scheduler = load(folder), DDPMScheduler.from_pretrained(folder / "scheduler")
    images, noise = load_file(HERE / "errors-images" / "x0.safetensors")["x0"], load_file(HERE / "errors-noise.safetensors")["noise"]
    image, candidate, t, k = (torch.tensor(column) for column in zip(*ROWS))
    labels = torch.where(candidate < 0, 10, candidate)
    alpha_bar = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    a, b, eps = alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), noise[k]

    def eps_hat(xt):
        out = model(xt, t, class_labels=labels).sample
        return {"epsilon": out, "v_prediction": a * out + b * xt, "sample": (xt - a * out) / b}[kind]

    made = dict(rows=torch.tensor(ROWS))
    for loss, distance in LOSSES.items():
        x0 = images[image].clone().requires_grad_()
        error = distance(eps_hat(a * x0 + b * eps), eps, reduction="none").mean((1, 2, 3))
        made[f"error.{loss}"] = error.detach()
        made[f"gradient.{loss}"] = torch.autograd.grad(error.sum(), x0)[0]
    xt = (a * images[image] + b * eps).requires_grad_()
    predicted = eps_hat(xt)
    made |= dict(xt=xt.detach(), eps_hat=predicted.detach(), pulled=torch.autograd.grad(predicted, xt, images[image])[0])
    save_file({key: value.contiguous() for key, value in made.items()}, OUT / f"errors-{kind}.safetensors")
    print(f"errors-{kind}: gradients up to {made['gradient.l2'].abs().max():.3g}")


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    parameters()
    for kind in ("epsilon", "v_prediction", "sample"):
        errors(kind)
