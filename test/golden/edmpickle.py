"""Makes edmpickle/: tiny networks, pickled as NVlabs/edm does it, and their state dicts as others store them.

    python3 edmpickle.py

A decorator pickles EDM's modules. It replaces each object by a call of _reconstruct_persistent_obj with a dictionary that
holds the source and the name of the class and the state of the object; the state includes the constructor's arguments.
"""
import copy
import importlib.util
import json
import os
import pickle
import sys
import types

import torch
from safetensors.torch import save_file

here = os.path.dirname(os.path.abspath(__file__))
out = os.path.join(here, "edmpickle")
os.makedirs(out, exist_ok=True)
spec = importlib.util.spec_from_file_location("edm", os.path.join(here, "../../weights/cifar-10/edm.py"))
edm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(edm)


def module(name, **members):
    made = types.ModuleType(name)
    for key, value in members.items():
        setattr(made, key, value)
        value.__module__ = name
        value.__qualname__ = key
    sys.modules[name] = made
    return made


def _reconstruct_persistent_obj(meta):
    raise RuntimeError("never called here")


class EasyDict(dict):
    pass


def persistent(cls):
    class Decorated(cls):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._init_args = copy.deepcopy(args)
            self._init_kwargs = copy.deepcopy(kwargs)

        def __reduce__(self):
            meta = {
                "type": "class",
                "version": 6,
                "module_src": "import os\nos.system('false')\n",
                "class_name": cls.__name__,
                "state": dict(self.__dict__),
            }
            return (_reconstruct_persistent_obj, (meta,))

    Decorated.__name__ = cls.__name__
    return Decorated


persistence = module("torch_utils.persistence", _reconstruct_persistent_obj=_reconstruct_persistent_obj)
module("dnnlib.util", EasyDict=EasyDict)
for name in ["UNetBlock", "SongUNet", "EDMPrecond"]:
    setattr(edm, name, persistent(getattr(edm, name)))
edm.EDMPrecond.networks = {"SongUNet": edm.SongUNet}
module("training.networks", **{name: getattr(edm, name) for name in ["Linear", "Conv2d", "GroupNorm"]})
for parent, child in [("torch_utils", "persistence"), ("dnnlib", "util"), ("training", "networks")]:
    sys.modules[parent] = types.ModuleType(parent)
    setattr(sys.modules[parent], child, sys.modules[f"{parent}.{child}"])

def network(name, save, *args, **kwargs):
    """Makes a network with random weights in half precision, writes its state as safetensors, and calls `save` with it."""
    net = edm.EDMPrecond(*args, model_type="SongUNet", model_channels=4, num_blocks=1, dropout=0.1, **kwargs)
    for tensor in net.parameters():
        torch.nn.init.normal_(tensor, std=0.3)
    net.half().eval().requires_grad_(False)
    state = {key: tensor.contiguous() for key, tensor in net.state_dict().items()}
    save_file(state, os.path.join(out, f"{name}.safetensors"))
    save(net)


def pickled(name, protocol):
    def save(net):
        data = dict(ema=net, loss_fn=None, augment_pipe=None, dataset_kwargs=EasyDict(path="a.zip", use_labels=True))
        with open(os.path.join(out, f"{name}.pkl"), "wb") as file:
            pickle.dump(data, file, protocol=protocol)

    return save


def kept(name):
    def save(net):
        pickled(name, 4)(net)
        torch.save(net.state_dict(), os.path.join(out, f"{name}.pt"))

    return save


def kept_old(name):
    def save(net):
        pickled(name, 2)(net)
        torch.save(net.state_dict(), os.path.join(out, f"{name}.pt"), _use_new_zipfile_serialization=False)

    return save


torch.manual_seed(1)
network(
    "cond", kept("cond"), 4, 3, label_dim=3, augment_dim=2, channel_mult=[1, 2], channel_mult_emb=2, attn_resolutions=[2]
)
network("uncond", kept_old("uncond"), 2, 1, channel_mult=[1], channel_mult_emb=1, attn_resolutions=[])

# Tensors that are views, that share storage, and of every dtype.
base = torch.arange(24, dtype=torch.float32)
views = {
    "whole": base.reshape(2, 3, 4),
    "offset": base[5:11],
    "transposed": base.reshape(4, 6).t(),
    "strided": base.reshape(2, 3, 4)[:, 1, ::2],
    "half": torch.tensor([0.5, -2.0, 65504.0]).half(),
    "bfloat16": torch.tensor([[1.5], [-3.0]]).bfloat16(),
    "double": torch.tensor([0.1, -0.2], dtype=torch.float64),
    "parameter": torch.nn.Parameter(torch.tensor([7.0, 8.0])),
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 4),
}
torch.save(views, os.path.join(out, "views.pt"))
torch.save(views, os.path.join(out, "views-legacy.pt"), _use_new_zipfile_serialization=False)
with open(os.path.join(out, "views.json"), "w") as file:
    json.dump({k: [list(v.shape), v.detach().double().flatten().tolist()] for k, v in views.items()}, file)
print({name: os.path.getsize(os.path.join(out, name)) for name in os.listdir(out)})
