"""Rename the weights of the paper's own code.

microsoft/Relation-Aware-Global-Attention-Networks; its networks are ResNets.
"""

import re

import torch
from torch import Tensor

from ._rga import StateDict

_OFFICIAL_ATTENTION = re.compile(r"backbone\.rga_att(\d)\.([^.]+)_(spatial|channel)\.(\d)\.(.+)")

# The paper's code keeps a convolution at 0 and its BN at 1 of each Sequential.
_OFFICIAL_PARTS = {
    "gg_{}.0": "relation",
    "gg_{}.1": "relation_bn.0",
    "W_{}.0": "hidden",
    "W_{}.1": "hidden_bn.0",
    "W_{}.3": "weight",
    "W_{}.4": "weight_bn",
}


def convert_official(weights: StateDict) -> StateDict:
    """Rename weights of the paper's own code, ``backbone.…``, ``feat_bn.…``, ``cls.weight``."""
    if weights.get("feat_bn.bias", torch.zeros(1)).any():
        raise ValueError("feat_bn.bias of the checkpoint is not 0: it is not of the paper's code")
    out: StateDict = {}
    for key, value in weights.items():
        if key == "cls.weight":
            out["fc.weight"] = value
        elif key.startswith("feat_bn.") and key != "feat_bn.bias":
            out[key.replace("feat_bn.", "neck.")] = value
        elif match := _OFFICIAL_ATTENTION.match(key):
            stage, part, kind, index, name = match.groups()
            prefix = f"layer{stage}.rga.{kind}"
            if part in ("theta", "phi", "gx") and index in "01":
                ours = "embed" if index == "0" else "embed_bn.0"
                theta = key.replace(f".{part}_", ".theta_")
                out[f"{prefix}.{ours}.{name}"] = _stack_embeddings(weights, theta)
            elif ours := _OFFICIAL_PARTS.get(f"{part}_{{}}.{index}", ""):
                out[f"{prefix}.{ours}.{name}"] = value
            else:
                raise ValueError(f"unexpected weight {key!r} in a checkpoint of the paper's code")
        elif key != "feat_bn.bias":
            out[key.removeprefix("backbone.")] = value
    return out


def _stack_embeddings(weights: StateDict, theta_key: str) -> Tensor:
    """Stack θ, φ and g, which are one convolution here."""
    keys = [theta_key.replace("theta_", part) for part in ("theta_", "phi_", "gx_")]
    if missing := [key for key in keys if key not in weights]:
        raise ValueError(f"the checkpoint lacks {', '.join(missing)}")
    parts = [weights[key] for key in keys]
    return torch.cat(parts) if parts[0].ndim else parts[0]  # num_batches_tracked is a scalar


def official_shapes(state: StateDict) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the paper's code of the weights of an RGA ResNet, ``state`` here."""
    theirs = {ours: part for part, ours in _OFFICIAL_PARTS.items()}
    shapes: dict[str, tuple[int, ...]] = {}
    for key, value in state.items():
        shape = tuple(value.shape)
        match = re.match(r"layer(\d)\.rga\.(spatial|channel)\.(.+)\.([^.]+)$", key)
        if match is None:
            ours, _, name = key.rpartition(".")
            part = {"fc": "cls", "neck": "feat_bn"}.get(ours, f"backbone.{ours}")
            shapes[f"{part}.{name}"] = shape
            continue
        stage, kind, ours, name = match.groups()
        prefix = f"backbone.rga_att{stage}"
        if ours in theirs:
            shapes[f"{prefix}.{theirs[ours].format(kind)}.{name}"] = shape
            continue
        index = 0 if ours == "embed" else 1
        for part in ("theta", "phi", "gx"):  # stacked here
            third = (shape[0] // 3, *shape[1:]) if shape else ()
            shapes[f"{prefix}.{part}_{kind}.{index}.{name}"] = third
    if "feat_bn.weight" in shapes:
        shapes["feat_bn.bias"] = shapes["feat_bn.weight"]  # frozen at 0; here there is none
    return shapes
