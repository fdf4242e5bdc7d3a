"""Test-time augmentation over scales: the same image at several sizes.

As image retrieval does it: cirtorch (Radenović et al., Fine-tuning CNN Image Retrieval with No
Human Annotation, TPAMI 2019) and DELG (Cao et al., Unifying Deep Local and Global Features for
Image Search, ECCV 2020) resize the image by each factor, L2-normalise the feature of each size,
average, and L2-normalise again. Normalised first, because features of one size may be longer than
those of another, which says nothing about how far they are to be trusted.
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
    """Scales as a tuple; a ValueError unless they are positive numbers, at least one."""
    checked = tuple(float(scale) for scale in scales)
    if not checked or not all(math.isfinite(scale) and scale > 0 for scale in checked):
        raise ValueError(f"scales are positive numbers, at least one; got {checked}")
    return checked


def scaled_size(model: nn.Module, img_size: Size, scale: float) -> Size:
    """Height and width at this scale: whole numbers of the model's patches or of pixels."""
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
    """What to run at each scale: a model, and the size that it takes the images in.

    A model with `set_input_size` (those of this package, timm's ViT and others) takes images of one
    size. For each other size there is a copy of it that is set to that one: the copies need the
    memory of as many models. Any other model is run as it is. What will run is tried on an empty
    image.

    Args:
        model: A timm model in eval mode, not wrapped; it is left as it is.
        img_size: Height and width of the images at scale 1, pixels.
        scales: Factors of both sides.

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
        # Parameters that are made in inference mode would be of no use to anybody else.
        with torch.inference_mode(False), torch.no_grad():
            if hasattr(model, "set_input_size"):
                model = copy.deepcopy(model)
                model.set_input_size(size)
            parameter = next(model.parameters(), torch.empty(0))
            channels = getattr(model, "in_chans", 3)
            image = parameter.new_zeros(1, channels, *size)
            model.forward_features(image)
    # A model may object in any way, timm's with assertions.
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot take images of {_text(size)}, "
            f"which is scale {scale:g}: {error}"
        ) from error
    return model


def resized(images: Tensor, size: Size) -> Tensor:
    """Images (B, C, H, W) at another size: bilinear, smoothed where they get smaller."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def mean_of_scales(features: Sequence[Tensor]) -> Tensor:
    """Features (B, D) of those of each scale, (B, D): the normalised mean of the normalised.

    With a single scale its own features, as they are.
    """
    if len(features) == 1:
        return features[0]
    unit = torch.stack([F.normalize(feature.float(), dim=1) for feature in features])
    return F.normalize(unit.mean(0), dim=1)


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
