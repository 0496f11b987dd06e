"""Makes multihead-null/ and multihead-plain/: tiny UNet2DModels whose conv_out predicts for every class at once.

    python3 multihead.py       # seeded; imports make.py

multihead-null   10 classes and, after them, an unconditional head: out_channels 11, in_channels 1.
multihead-plain  3 classes of 3 channels each: out_channels 9. It has no id2label; `multi_head` marks it as multi-head. It
                 predicts v.
expected.json    the error of every (image, timestep, noise) for every class and, last, without a class. The error without a
                 class comes from the extra head or, if there is none, from the mean of the heads.
io.safetensors   images, noise, and the gradients d error / d x0 of the first evaluation of the first image, for class 1 and
                 without a class.
"""

import json

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from make import HERE, make_unet, noise_of, save_file, save_model, write_json

TIMESTEPS = [15, 120, 480, 900]
CASES = {
    "null": dict(classes=10, null=True, kind="epsilon", in_channels=1, out_channels=11),
    "plain": dict(classes=3, null=False, kind="v_prediction", in_channels=3, out_channels=9, block_out_channels=[8, 8]),
}


def golden(seed, name, classes, null, kind, **config):
    g = torch.Generator().manual_seed(seed)
    model = make_unet(seed, torch.float16, **config)
    scheduler = DDPMScheduler(prediction_type=kind)
    c, side = config["in_channels"], 16
    folder = HERE / f"multihead-{name}"
    save_model(model, folder, torch.float16, scheduler=scheduler, labels=[f"class {k}" for k in range(classes)] if null else None)
    if not null:
        index = json.loads((folder / "model_index.json").read_text())
        write_json(folder / "model_index.json", index | {"multi_head": True})
    x0 = torch.rand(2, c, side, side, generator=g) * 2 - 1
    noise = torch.randn(len(TIMESTEPS), c, side, side, generator=g)

    def errors_of(x, t, k):
        """Returns the errors [classes + 1] of an image [1, c, h, w]; the last is that of the unconditional prediction."""
        alpha_bar = scheduler.alphas_cumprod[t]
        xt = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise[k : k + 1]
        heads = model(xt, torch.tensor(t)).sample.unflatten(1, (-1, c))
        if not null:
            heads = torch.cat([heads, heads.mean(1, keepdim=True)], 1)
        eps = noise_of(heads, kind, xt[:, None], alpha_bar)
        return F.mse_loss(eps, noise[k : k + 1, None].expand_as(eps), reduction="none").mean((0, 2, 3, 4))

    with torch.no_grad():
        errors = [[errors_of(x[None], t, k).tolist() for k, t in enumerate(TIMESTEPS)] for x in x0]
    first = x0[:1].clone().requires_grad_()
    made = errors_of(first, TIMESTEPS[0], 0)
    gradients = torch.stack([torch.autograd.grad(made[k], first, retain_graph=True)[0][0] for k in (1, classes)])
    write_json(folder / "expected.json", dict(timesteps=TIMESTEPS, errors=errors))
    save_file(dict(x0=x0, noise=noise, gradients=gradients), folder / "io.safetensors")
    print(f"multihead-{name}: {[round(e, 3) for e in errors[0][1]]}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, case) in enumerate(CASES.items()):
        golden(70 + seed, name, **case)
