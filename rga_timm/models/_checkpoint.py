"""Turn any checkpoint that fits a backbone into a complete state dict of an RGA model.

Three kinds load: checkpoints of this project, those of other projects that the family can read
(such as the paper's own code), and those of the plain backbone, which leave relation attention,
neck and classifier untrained. All others are refused with the names that are missing or unexpected,
because timm's loader is not strict where the number of classes differs.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from timm.models import get_pretrained_cfg
from torch import Tensor

from rga_timm.layers import resample_grid_weight
from rga_timm.weights_file import some, state_dict_of

from ._rga import StateDict, rga_modules

_logger = logging.getLogger(__name__)

_HALVES = (torch.float16, torch.bfloat16)


def checkpoint_filter_fn(state_dict: dict[str, Any], model: Any) -> StateDict:
    """Make a complete state dict for ``model`` from any checkpoint that fits it.

    The model's ``pretrained_cfg['input_size']`` is the image size of the checkpoint; if
    ``img_size`` differs, the relation weights are resampled.

    Raises:
        ValueError: If weights are missing, unexpected or of the wrong shape.
    """
    weights = model.convert_weights(_unwrap(state_dict))
    has_head = any(key.startswith("neck.") or ".rga." in key for key in weights)
    if not has_head:
        classifier = f"{get_pretrained_cfg(model.backbone).classifier}."  # ImageNet's
        weights = {k: v for k, v in weights.items() if not k.startswith(classifier)}
    elif "fc.weight" in weights and len(weights["fc.weight"]) != model.num_classes:
        text = "The checkpoint's classifier of %d identities is dropped: the model has %d."
        _logger.info(text, len(weights.pop("fc.weight")), model.num_classes)
    if has_head and "fc.weight" in weights:
        # It fits, but timm would drop it if the config had another number of classes.
        model.pretrained_cfg["num_classes"] = model.num_classes
    checkpoint_size = tuple(model.pretrained_cfg["input_size"][-2:])
    weights = model.resample_backbone(weights, checkpoint_size if has_head else None)
    weights = _resample(weights, model, checkpoint_size)
    return _complete(weights, model, has_head)


def _unwrap(state_dict: dict[str, Any]) -> StateDict:
    """The weights in float32, without the trainer's wrapping dict and prefix."""
    try:
        weights = state_dict_of(state_dict)
    except ValueError as error:
        raise ValueError(f"the checkpoint cannot be read: {error}") from error
    return {k: v.float() if v.dtype in _HALVES else v for k, v in weights.items()}


def _resample(weights: StateDict, model: Any, old_size: tuple[int, int]) -> StateDict:
    """Resample the weights over positions from the checkpoint's image size to the model's."""
    if old_size == model.img_size:
        return weights
    out, count = dict(weights), 0
    for name, (rga, reduction) in rga_modules(model).items():
        old_grid = model.feat_size(old_size, reduction)
        for key, grids in rga.position_weights().items():
            weight = weights.get(f"{name}.{key}")
            if weight is None or weight.shape[1] != grids * old_grid[0] * old_grid[1]:
                continue  # reported by _complete, with its shape
            resampled = resample_grid_weight(weight.flatten(1), old_grid, (rga.height, rga.width))
            out[f"{name}.{key}"] = resampled[..., None, None]
            count += 1
    if count:
        text = "Relation weights resampled from images of %dx%d to %dx%d."
        _logger.info(text, *old_size, *model.img_size)
    return out


def _complete(weights: StateDict, model: Any, has_head: bool) -> StateDict:
    """Add the model's own tensors where the checkpoint may lack them; refuse other gaps."""
    own = model.state_dict()
    # Models may be made without a classifier, and without a neck if they do not pool.
    without = ("fc.weight",) if model.pool_type else ("fc.weight", "neck.")
    weights = {k: v for k, v in weights.items() if k in own or not k.startswith(without)}
    missing = [key for key in own if key not in weights]

    def may_be_fresh(key: str) -> bool:
        if key.endswith("num_batches_tracked") or key.startswith("fc."):
            return True  # old files lack the first, feature extractors the second
        return not has_head and (key.startswith("neck.") or ".rga." in key)

    shapes = {key: tuple(value.shape) for key, value in own.items()}
    # The input convolution's channels are timm's to adapt.
    first = f"{model.pretrained_cfg.get('first_conv')}.weight"
    if first in shapes and first in weights:
        shapes[first] = tuple(weights[first].shape)
    if misfits := differences(weights, shapes, may_be_fresh):
        raise ValueError(_misfit(model, misfits))
    if not has_head:
        text = (
            "The weights are those of the backbone alone: relation attention, neck and classifier "
            "(%d tensors) are new and need training on person images."
        )
        _logger.warning(text, sum(not key.endswith("num_batches_tracked") for key in missing))
    elif "fc.weight" in missing:
        _logger.info("The classifier of %d identities is new.", model.num_classes)
    return {**{key: own[key] for key in missing}, **weights}


def differences(
    weights: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    may_lack: Callable[[str], bool],
) -> list[str]:
    """List how weights differ from those of a network, given its shapes and what may be missing."""
    kinds = {
        "missing": [key for key in shapes if key not in weights and not may_lack(key)],
        "unexpected": sorted(weights.keys() - shapes.keys()),
        "of another shape": [
            f"{key} {tuple(value.shape)}, not {shapes[key]}"
            for key, value in weights.items()
            if key in shapes and tuple(value.shape) != shapes[key]
        ],
    }
    return [f"{kind}: {some(items)}" for kind, items in kinds.items() if items]


def _misfit(model: Any, misfits: list[str]) -> str:
    cfg = model.pretrained_cfg
    advice = (
        f"The model has relation={model.relation!r}, native_size={model.native_size} and expects "
        f"a checkpoint for images of {tuple(cfg['input_size'][-2:])}. Pass the relation and "
        "native_size that the checkpoint was made with, and its image size as "
        "pretrained_cfg_overlay=dict(input_size=(3, height, width))."
    )
    head = f"the checkpoint does not fit {cfg.get('architecture', 'the model')}:"
    return "\n  ".join([head, *misfits, advice])
