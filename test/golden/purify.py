"""Makes purify/: a few purified images, computed with torch's autograd and optimizers in double precision.

    python3 purify.py          # after make.py and edm.py; rewrites purify/

cases.json             name, model, and the options as they are typed, without noise and folders. Step i uses noise i of
                       errors-noise.safetensors, or the i-th noise of edm.py.
MODEL.safetensors      NAME/IMAGE: the purified image, [c, h, w] in [-1, 1]. errors-MODEL/ purifies the images of
                       errors-images by the network under its null class. edm-song purifies edm.py's image by the network in
                       uncond/.
"""

import importlib.util
import json
import shutil
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file

from gradients import load

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("edm_goldens", HERE / "edm.py")  # loaded by path, because it imports another module called edm
edm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(edm)
OUT = HERE / "purify"
torch.set_num_threads(1)
SIGMAS = [0.47, 0.41, 0.58, 0.52, 0.44]
LM = {
    "lm-adam": dict(method="lm-adam", sigmas=SIGMAS, steps=5),
    "lm-adam in a ball": dict(method="lm-adam", sigmas=SIGMAS[::-1], steps=4, eps="16/255", step_size=0.05),
    "lm-momentum": dict(method="lm-momentum", sigmas=SIGMAS, eps="8/255", norm="linf"),
    "lm-momentum, small steps": dict(method="lm-momentum", sigmas=SIGMAS, eps="20/255", norm="linf", step_size=0.03),
    "lm-momentum, l2": dict(method="lm-momentum", sigmas=SIGMAS, eps="0.5", norm="l2", step_size=0.4),
    "lm-residual": dict(method="lm-residual", sigmas=SIGMAS, eps="20/255", norm="linf", step_size=0.03),
    "lm-residual, l2": dict(method="lm-residual", sigmas=SIGMAS, eps="1", norm="l2", step_size=0.3),
}
FEW = dict(method="diffpure", sigmas=[0.5, 0.3, 0.1])
CASES = {
    "epsilon": LM | {"diffpure": dict(method="diffpure", t_star=12)},
    "v_prediction": {"lm-adam": LM["lm-adam"], "diffpure, few": FEW},
    "sample": {"lm-adam": LM["lm-adam"], "diffpure, few": FEW},
    "edm-song": {"lm-adam": LM["lm-adam"], "lm-momentum, l2": LM["lm-momentum, l2"], "lm-residual": LM["lm-residual"], "diffpure": dict(method="diffpure"), "diffpure, few": FEW},
}  # fmt: skip


class Discrete:
    """A model with discrete timesteps: signal scale a and noise scale b of each, and the predicted noise."""

    def __init__(self, kind):
        folder = HERE / f"errors-{kind}"
        self.kind, self.model = kind, load(folder).double()
        self.bars = DDPMScheduler.from_pretrained(folder / "scheduler").alphas_cumprod.double()
        self.images = {f"{i}.png": x.double() for i, x in enumerate(load_file(HERE / "errors-images" / "x0.safetensors")["x0"])}
        self.noise = load_file(HERE / "errors-noise.safetensors")["noise"].double()

    def level(self, sigma):
        return int(torch.nonzero(((1 - self.bars) / self.bars).sqrt() >= sigma)[0])

    def mix(self, t):
        return self.bars[t].sqrt(), (1 - self.bars[t]).sqrt()

    def eps_hat(self, xt, t):
        a, b = self.mix(t)
        out = self.model(xt[None], t, class_labels=torch.tensor([10])).sample[0]
        return {"epsilon": out, "v_prediction": a * out + b * xt, "sample": (xt - a * out) / b}[self.kind]

    def diffpure(self, x, t_star=None, sigmas=None):
        down = [self.level(s) for s in sigmas] if sigmas else list(range(t_star))[::-1]
        a, b = self.mix(down[0])
        x = a * x + b * self.noise[0]
        for k, t in enumerate(down):
            here, there = self.bars[t], self.bars[down[k + 1]] if k + 1 < len(down) else torch.tensor(1.0)
            beta = 1 - here / there
            score = -self.eps_hat(x, t) / (1 - here).sqrt()
            x = x + beta * (x / 2 + score) + beta.sqrt() * self.noise[k + 1]
        return x


class Continuous:
    """EDM's network without classes, for any sigma."""

    def __init__(self):
        self.net = edm.network(edm.CASES["song"]["uncond"], "uncond ")
        side = 8
        image = (256 * edm.uniform("song image", side * side * 3)).astype(int)
        self.images = {"song.png": torch.from_numpy(image.reshape(side, side, 3)).permute(2, 0, 1).double() / 127.5 - 1}
        noise = (2 * edm.uniform("noise", 125 * side * side * 3) - 1) * 3**0.5
        self.noise = torch.from_numpy(noise.astype("float32")).double().reshape(125, 3, side, side)

    def level(self, sigma):
        return sigma

    def mix(self, sigma):
        return torch.tensor(1.0), torch.tensor(sigma)

    def denoise(self, x, sigma):
        return self.net(x[None], torch.tensor([sigma]).double())[0]

    def eps_hat(self, x, sigma):
        return (x - self.denoise(x, sigma)) / sigma

    def diffpure(self, x, sigmas=None):
        sigmas = sigmas or [(0.5 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 0.5 ** (1 / 7))) ** 7 for i in range(18)]
        x = x + sigmas[0] * self.noise[0]
        for s, to in zip(sigmas, sigmas[1:] + [0]):
            d = (x - self.denoise(x, s)) / s
            euler = x + (to - s) * d
            x = euler if to == 0 else x + (to - s) / 2 * (d + (euler - self.denoise(euler, to)) / to)
        return x


def purify(model, x, method, sigmas=None, eps=None, norm="linf", steps=None, step_size=0.1, **rest):
    radius = None if eps is None else 2 * eval(eps)

    def clip(y):
        if radius is not None:
            y = x + (y - x).clamp(-radius, radius) if norm == "linf" else x + (y - x) * (radius / (y - x).norm()).clamp(max=1)
        return y.clamp(-1, 1)

    if method == "diffpure":
        return clip(model.diffpure(x, **({"sigmas": sigmas} if sigmas else {}), **rest))
    levels = [model.level(s) for s in sigmas[:steps]]

    def denoised(y, i):
        a, b = model.mix(levels[i])
        xt = a * y + b * model.noise[i]
        return (xt - b * model.eps_hat(xt, levels[i])) / a

    if method == "lm-adam":
        y = x.clone().requires_grad_()
        adam = torch.optim.Adam([y], lr=step_size)
        for i in range(len(levels)):
            adam.zero_grad()
            (denoised(y, i) - y).square().mean().backward()
            adam.step()
        return clip(y.detach())
    y, m = x.clone(), torch.zeros_like(x)
    for i in range(len(levels)):
        if method == "lm-residual":
            with torch.no_grad():
                g = y - denoised(y, i)
        else:
            z = y.clone().requires_grad_()
            (g,) = torch.autograd.grad((denoised(z, i) - z).square().mean(), z)
        m = m - g / g.abs().sum()
        y = clip(y + step_size * (m.sign() if norm == "linf" else m / m.norm()))
    return y


def typed(options):
    flags = (("--" + key.replace("_", "-"), ",".join(map(str, value)) if isinstance(value, list) else str(value)) for key, value in options.items())
    return [part for flag in flags for part in flag]


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    cases = []
    for name, own in CASES.items():
        model, made = Continuous() if name == "edm-song" else Discrete(name), {}
        for case, options in own.items():
            cases.append(dict(name=case, model=name, argv=typed(options)))
            for path, x in model.images.items():
                with torch.set_grad_enabled(options["method"].startswith("lm")):
                    made[f"{case}/{path}"] = purify(model, x, **options).detach().float().contiguous()
        save_file(made, OUT / f"{name}.safetensors")
        print(name, "moved by up to", max(float((made[f"{case}/{path}"] - x).abs().max()) for case in own for path, x in model.images.items()))
    (OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
