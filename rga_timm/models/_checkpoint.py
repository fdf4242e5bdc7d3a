"""Any checkpoint that fits a backbone, turned into a complete state dict of an RGA model.

Three kinds load: this project's own, the paper's own code's, and plain ones of the backbone (timm's
or torchvision's), whose relation attention, neck and classifier then stay fresh. What is neither
complete nor one of these is refused, with the names that are missing or too many, because timm's
loader turns lenient as soon as the number of classes differs.
"""

import logging
import re
from typing import Any

import torch
from torch import Tensor

from rga_timm.layers import resample_grid_weight

from ._rga import grid_size, rga_modules

_logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]

# The parts that a plain backbone checkpoint does not have.
_HEAD = ("neck.", "fc.")


def checkpoint_filter_fn(state_dict: dict[str, Any], model: Any) -> StateDict:
    """A complete state dict for ``model`` from any checkpoint that fits it.

    Args:
        state_dict: Weights as saved, possibly wrapped (``'state_dict'``) or prefixed (``module.``).
        model: The RGA model, with its ``pretrained_cfg``, whose ``input_size`` is the image size of
            the checkpoint. At another ``img_size`` the relation weights are resampled.

    Returns:
        Every key of ``model.state_dict()``.

    Raises:
        ValueError: If weights are missing, unexpected or of the wrong shape.
    """
    weights = _unwrap(state_dict)
    if any(key.startswith("backbone.") for key in weights):
        weights = convert_official(weights)
    has_head = any(key.startswith("neck.") or ".rga." in key for key in weights)
    if not has_head:
        # The classifier of ImageNet, under the name of ours.
        weights = {k: v for k, v in weights.items() if not k.startswith("fc.")}
    elif "fc.weight" in weights and len(weights["fc.weight"]) != model.num_classes:
        classes = len(weights.pop("fc.weight"))
        _logger.info(
            "The checkpoint's classifier of %d identities is dropped: the model has %d.",
            classes,
            model.num_classes,
        )
    weights = _resample(weights, model)
    return _complete(weights, model, has_head)


def _unwrap(state_dict: dict[str, Any]) -> StateDict:
    """The weights proper: without the trainer's wrapping dict and DataParallel's prefix."""
    for key in ("state_dict", "model"):
        if isinstance(state_dict.get(key), dict):
            state_dict = state_dict[key]
    return {k.removeprefix("module."): v for k, v in state_dict.items()}


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
    """Weights of the paper's own code under the names of this project.

    Args:
        weights: Keys ``backbone.…``, ``feat_bn.…``, ``cls.weight``, as microsoft/
            Relation-Aware-Global-Attention-Networks saves them.

    Raises:
        ValueError: If an embedding is incomplete, or the neck's bias is not 0.
    """
    out: StateDict = {}
    for key, value in weights.items():
        if key == "cls.weight":
            out["fc.weight"] = value
        elif key == "feat_bn.bias":
            if value.any():
                raise ValueError(
                    "feat_bn.bias of the checkpoint is not 0: the paper's code freezes it at 0, so "
                    "this file was not made by it"
                )
        elif key.startswith("feat_bn."):
            out[key.replace("feat_bn.", "neck.")] = value
        elif match := re.match(
            r"backbone\.rga_att(\d)\.([^.]+)_(spatial|channel)\.(\d)\.(.+)", key
        ):
            stage, part, kind, index, name = match.groups()
            if part not in ("theta", "phi", "gx"):
                ours = _OFFICIAL_PARTS.get(f"{part}_{{}}.{index}")
                if ours is None:
                    raise ValueError(
                        f"unexpected weight {key!r} in a checkpoint of the paper's code"
                    )
                out[f"layer{stage}.rga.{kind}.{ours}.{name}"] = value
            elif index not in "01":
                raise ValueError(f"unexpected weight {key!r} in a checkpoint of the paper's code")
            else:
                ours = "embed" if index == "0" else "embed_bn.0"
                theta = key.replace(f".{part}_", ".theta_")
                out[f"layer{stage}.rga.{kind}.{ours}.{name}"] = _stack_embeddings(weights, theta)
        else:
            out[key.removeprefix("backbone.")] = value
    return out


def _stack_embeddings(weights: StateDict, theta_key: str) -> Tensor:
    """θ over φ over g: we embed all three at once."""
    keys = [theta_key.replace("theta_", part) for part in ("theta_", "phi_", "gx_")]
    if missing := [key for key in keys if key not in weights]:
        raise ValueError(f"the checkpoint lacks {', '.join(missing)}")
    parts = [weights[key] for key in keys]
    return torch.cat(parts) if parts[0].ndim else parts[0]  # num_batches_tracked is a scalar


def _resample(weights: StateDict, model: Any) -> StateDict:
    """Carry the weights that look at positions from the checkpoint's image size to the model's."""
    old_size = tuple(model.pretrained_cfg["input_size"][-2:])
    if old_size == model.img_size:
        return weights
    out, count = dict(weights), 0
    for name, (rga, reduction) in rga_modules(model).items():
        old_grid = grid_size(old_size, reduction)
        for key, grids in rga.position_weights().items():
            weight = weights.get(f"{name}.{key}")
            if weight is None or weight.shape[1] != grids * old_grid[0] * old_grid[1]:
                continue  # reported by _complete, with its shape
            resampled = resample_grid_weight(weight.flatten(1), old_grid, (rga.height, rga.width))
            out[f"{name}.{key}"] = resampled[..., None, None]
            count += 1
    if count:
        _logger.info(
            "Relation weights resampled from images of %dx%d to %dx%d.", *old_size, *model.img_size
        )
    return out


def _complete(weights: StateDict, model: Any, has_head: bool) -> StateDict:
    """Add the model's own fresh tensors where the checkpoint may lack them; refuse other gaps."""
    own = model.state_dict()
    # Parts of the head that the model was made without: classifier; neck, for unpooled maps.
    without = ("fc.weight",) if model.global_pool.pool_type else ("fc.weight", "neck.")
    weights = {k: v for k, v in weights.items() if k in own or not k.startswith(without)}
    unexpected = sorted(weights.keys() - own.keys())
    missing = [key for key in own if key not in weights]

    def may_be_fresh(key: str) -> bool:
        if key.endswith("num_batches_tracked") or key.startswith("fc."):
            return True  # old files lack the first, feature extractors the second
        return not has_head and (key.startswith(_HEAD) or ".rga." in key)

    lacking = [key for key in missing if not may_be_fresh(key)]
    # The input convolution's channels are timm's to adapt.
    first = f"{model.pretrained_cfg.get('first_conv')}.weight"
    misshapen = [
        f"{key} {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in weights.items()
        if key in own and key != first and value.shape != own[key].shape
    ]
    if lacking or unexpected or misshapen:
        raise ValueError(_misfit(model, lacking, unexpected, misshapen))
    if not has_head:
        fresh = [k for k in missing if not k.endswith("num_batches_tracked")]
        _logger.warning(
            "The weights are those of the backbone alone: relation attention, neck and classifier "
            "(%d tensors) are new and need training on person images.",
            len(fresh),
        )
    elif "fc.weight" in missing:
        _logger.info("The classifier of %d identities is new.", model.num_classes)
    return {**{key: own[key] for key in missing}, **weights}


def _misfit(model: Any, lacking: list[str], unexpected: list[str], misshapen: list[str]) -> str:
    """Say what does not fit, and what to look at."""

    def some(items: list[str]) -> str:
        more = f" and {len(items) - 6} more" if len(items) > 6 else ""
        return f"{len(items)} ({', '.join(items[:6])}{more})"

    lines = [
        f"the checkpoint does not fit {model.pretrained_cfg.get('architecture', 'the model')}:"
    ]
    if lacking:
        lines.append(f"missing: {some(lacking)}")
    if unexpected:
        lines.append(f"unexpected: {some(unexpected)}")
    if misshapen:
        lines.append(f"of another shape: {some(misshapen)}")
    lines.append(
        f"The model has relation={model.relation!r}, native_size={model.native_size} and expects a "
        f"checkpoint for images of {tuple(model.pretrained_cfg['input_size'][-2:])}. Pass the "
        "relation and native_size that the checkpoint was made with, and its image size as "
        "pretrained_cfg_overlay=dict(input_size=(3, height, width))."
    )
    return "\n  ".join(lines)
