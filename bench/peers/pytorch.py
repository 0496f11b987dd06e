"""PyTorch as a peer of `npm run bench -- peers`. The requests and replies are those of bench/peers/protocol.ts.

A convolution runs in both memory formats, and a network too; the faster one is timed.
"""

import json
import os
import sys
import time

replies = os.fdopen(3, "w", buffering=1)


def reply(message):
    replies.write(json.dumps(message) + "\n")


try:
    import numpy as np
    import torch
    import torch.nn.functional as F
except ImportError as error:
    reply({"error": f"{sys.executable} has no PyTorch ({error}): pip install torch"})
    sys.exit(0)

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def operator(work):
    """Returns the case as a function of its inputs by name."""
    op = work["op"]
    if op == "gemm":
        return lambda a, b: a @ b
    if op == "conv":
        return lambda x, weight: F.conv2d(x, weight, padding=1)
    if op == "conv-dx":
        return lambda dy, weight: torch.nn.grad.conv2d_input(work["result"], weight, dy, padding=1)
    if op == "conv-dw":
        return lambda x, dy: torch.nn.grad.conv2d_weight(x, work["result"], dy, padding=1)
    if op == "group-norm-silu":
        return lambda x, gamma, beta: F.silu(F.group_norm(x, work["groups"], gamma, beta, work["eps"]))
    if op == "attention":
        return F.scaled_dot_product_attention
    raise ValueError(f"PyTorch has no function for {op}")


def network(work):
    from diffusers import UNet2DModel
    from diffusers.utils import logging

    logging.set_verbosity_error()
    unet = UNet2DModel.from_pretrained(work["model"], subfolder="unet").float().eval()
    return unet, lambda x, t, label: unet(x, t.long(), class_labels=label.long()).sample


class OpenCase:
    def __init__(self, work, folder):
        self.work = work
        self.module, self.run = network(work) if work["op"] == "unet" else (None, operator(work))
        self.host = {
            name: torch.from_numpy(np.fromfile(f"{folder}/{name}.f32", np.float32).reshape(shape))
            for name, shape in work["inputs"].items()
        }
        if work["op"] == "attention":  # [n, heads, tokens, headDim]
            self.host = {name: x.transpose(1, 2).contiguous() for name, x in self.host.items()}
        self.note = None
        if work["op"] not in ("gemm", "attention"):
            trials = {}
            for name in FORMATS:
                self.use(name)
                self.resident(2)
                start = time.perf_counter()
                self.resident(5)
                trials[name] = time.perf_counter() - start
            self.note = min(trials, key=trials.get)
            self.use(self.note)

    def use(self, name):
        memory = FORMATS[name]
        if self.module is not None:
            self.module.to(memory_format=memory)
        self.inputs = {k: x.contiguous(memory_format=memory) if x.dim() == 4 else x for k, x in self.host.items()}

    def result(self):
        y = self.run(**self.named())
        if self.work["op"] == "attention":
            y = y.transpose(1, 2)
        return y.contiguous().numpy()

    def named(self):
        inputs = getattr(self, "inputs", self.host)
        if self.work["op"] == "attention":
            return {"query": inputs["q"], "key": inputs["k"], "value": inputs["v"]}
        return inputs

    def resident(self, runs):
        inputs = self.named()
        for _ in range(runs):
            self.run(**inputs)


def answer(request, current):
    if request["do"] == "open":
        case = OpenCase(request["work"], request["data"])
        case.result().tofile(request["result"])
        return {"note": case.note} if case.note else {}, case
    if request["do"] == "close":
        return {}, None
    # Operands and results are in host memory: a call is a run.
    start, cpu = time.perf_counter(), time.process_time()
    current.resident(request["runs"])
    ms = (time.perf_counter() - start) * 1e3 / request["runs"]
    return {"ms": ms, "cpuMs": (time.process_time() - cpu) * 1e3}, current


@torch.inference_mode()
def main():
    reply({"description": f"PyTorch {torch.__version__}, CPU, {torch.get_num_threads()} threads"})
    current = None
    for line in sys.stdin:
        try:
            message, current = answer(json.loads(line), current)
        except Exception as error:  # a peer that cannot do a case says why
            message = {"error": str(error).splitlines()[0] if str(error) else repr(error)}
        reply(message)


main()
