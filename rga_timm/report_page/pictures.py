"""Small pictures and attention maps for the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from rga_timm.data import ReidDataset, ReidReader
from rga_timm.explain import attention_maps

HEIGHT = 128  # of a picture, pixels
_MAP = (32, 16)  # of a map, at the most
_FACE = 0.2  # of an upright person's picture: the head is above


def read_picture(reader: ReidReader, index: int) -> Image.Image:
    """Read an image as the model gets it before resizing: upright, cropped to its box, RGB."""
    image: Image.Image = ReidDataset(reader)[index][0]
    return image


def thumbnail(image: Image.Image, blur_face: bool = False) -> str:
    """Encode a picture as a ``data:`` URL.

    `blur_face` blurs the upper fifth beyond recognition; a head that is elsewhere is not found.
    """
    width = max(1, round(image.width * HEIGHT / image.height))
    small = image.resize((min(width, 2 * HEIGHT), HEIGHT), Image.Resampling.LANCZOS)
    if blur_face:
        head = (0, 0, small.width, round(_FACE * HEIGHT))
        # Only a few colours are kept, because a blur alone could be sharpened again.
        coarse = small.crop(head).resize((3, 2), Image.Resampling.BOX)
        smooth = coarse.resize((head[2], head[3]), Image.Resampling.BILINEAR)
        small.paste(smooth.filter(ImageFilter.GaussianBlur(2)), head)
    file = BytesIO()
    small.save(file, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def has_spatial_attention(model: Any) -> bool:
    """Return whether the model has maps to show."""
    return getattr(model, "relation", "none") not in ("none", "c")


def attention_of(
    model: Any,
    transform: Any,
    images: Sequence[Image.Image],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> list[list[dict[str, Any]]]:
    """Compute the spatial attention of each stage, for each image.

    A map is ``height``, ``width``, ``low`` and ``high``, its lowest and highest weight, and
    ``values``: base64 of a byte for each position, 0 for the lowest and 255 for the highest.
    """
    maps: list[list[dict[str, Any]]] = []
    for start in range(0, len(images), batch_size):
        batch = torch.stack([transform(image) for image in images[start : start + batch_size]])
        stages = attention_maps(model, batch.to(device))
        spatial = [stage.spatial for stage in stages if stage.spatial is not None]
        maps += [[_encode(weights[i]) for weights in spatial] for i in range(len(batch))]
    return maps


def _encode(weights: Tensor) -> dict[str, Any]:
    """Encode a map of (H, W) weights."""
    size = (min(weights.shape[0], _MAP[0]), min(weights.shape[1], _MAP[1]))
    small = F.adaptive_avg_pool2d(weights.detach().float().cpu()[None], size)[0]
    low, high = float(small.min()), float(small.max())
    scaled = (small - low) / (high - low) if high > low else torch.full_like(small, 0.5)
    values = (255 * scaled).round().to(torch.uint8).numpy().tobytes()
    return {
        "height": size[0],
        "width": size[1],
        "values": base64.b64encode(values).decode(),
        "low": round(low, 4),
        "high": round(high, 4),
    }
