"""Test-time augmentation over scales: the same image at several sizes.

As in cirtorch (Radenović et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI
2019) and DELG (Cao et al., Unifying Deep Local and Global Features for Image Search, ECCV 2020),
the features of all sizes are L2-normalised, averaged, and L2-normalised again. Without the first
normalisation the sizes with longer features would weigh more.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]


def check_scales(scales: Iterable[float]) -> tuple[float, ...]:
    """Return scales as a tuple; raise a ValueError unless they are positive, and at least one."""
    checked = tuple(float(scale) for scale in scales)
    if not checked or not all(math.isfinite(scale) and scale > 0 for scale in checked):
        raise ValueError(f"scales are positive numbers, at least one; got {checked}")
    return checked


def scaled_size(model: nn.Module, img_size: Size, scale: float) -> Size:
    """Return height and width at a scale: whole numbers of the model's patches or of pixels."""
    patches: Any = getattr(model, "patch_embed", None)
    ratio: Any = (1, 1)
    if hasattr(patches, "feat_ratio"):
        ratio = patches.feat_ratio(as_scalar=False)
    height, width = (
        max(step, step * math.floor(side * scale / step + 0.5))
        for side, step in zip(img_size, ratio, strict=True)
    )
    return (height, width)


def models_at_scales(
    model: nn.Module, img_size: Size, scales: Sequence[float]
) -> list[tuple[nn.Module, Size]]:
    """Return the model to run at each scale, and the size of its images; try it on an empty image.

    A model with `set_input_size` (those of this package, timm's ViT and others) takes images of one
    size. It is copied for each other size, and the copies need the memory of as many models. Any
    other model is run as it is.

    Raises:
        ValueError: The model cannot take images of such a size, or two scales come to one size.
    """
    found: dict[Size, tuple[float, nn.Module]] = {}
    for scale in scales:
        size = img_size if scale == 1 else scaled_size(model, img_size, scale)
        if size in found:
            raise ValueError(
                f"the scales {found[size][0]:g} and {scale:g} of {_text(img_size)} images are both "
                f"{_text(size)} for {type(model).__name__}: leave one out"
            )
        found[size] = scale, model if size == img_size else _model_for(model, size, scale)
    return [(scaled, size) for size, (_, scaled) in found.items()]


def _model_for(model: Any, size: Size, scale: float) -> nn.Module:
    try:
        # Parameters made in inference mode could not be trained.
        with torch.inference_mode(False), torch.no_grad():
            if hasattr(model, "set_input_size"):
                model = copy.deepcopy(model)
                model.set_input_size(size)
            parameter = next(model.parameters(), torch.empty(0))
            model.forward_features(parameter.new_zeros(1, getattr(model, "in_chans", 3), *size))
    except Exception as error:  # of any type, in timm often assertions
        name = type(model).__name__
        message = f"{name} cannot take images of {_text(size)}, which is scale {scale:g}: {error}"
        raise ValueError(message) from error
    return model


def resized(images: Tensor, size: Size) -> Tensor:
    """Resize images (B, C, H, W): bilinear, antialiased."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def mean_of_scales(features: Sequence[Tensor]) -> Tensor:
    """Average normalised features (B, D) of several scales, and normalise; keep those of one."""
    if len(features) == 1:
        return features[0]
    unit = torch.stack([F.normalize(feature.float(), dim=1) for feature in features])
    return F.normalize(unit.mean(0), dim=1)


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
