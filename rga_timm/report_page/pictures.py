"""Pictures and attention maps, small enough for many of them in one file."""

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


def first_images(reader: ReidReader) -> list[int]:
    """Which image stands for each feature: itself, or the first one of a tracklet."""
    if not reader.has_tracklets:
        return list(range(len(reader)))
    first: dict[int, int] = {}
    for index, image in enumerate(reader.images):
        first.setdefault(image.tracklet, index)
    return list(first.values())


def read_picture(reader: ReidReader, index: int) -> Image.Image:
    """The image as the model sees it before resizing: cut out, RGB."""
    image: Image.Image = ReidDataset(reader)[index][0]
    return image.convert("RGB")


def thumbnail(image: Image.Image, blur_face: bool = False) -> str:
    """A picture for the page, as a ``data:`` address.

    Args:
        image: Of any size.
        blur_face: Blur the upper fifth beyond recognition. Where a head is elsewhere, in a picture
            of somebody who bends down, it is not found.
    """
    width = max(1, round(image.width * HEIGHT / image.height))
    small = image.resize((min(width, 2 * HEIGHT), HEIGHT), Image.Resampling.LANCZOS)
    if blur_face:
        head = (0, 0, small.width, round(_FACE * HEIGHT))
        # Few colours are left of it, not only soft ones: those could be sharpened again.
        coarse = small.crop(head).resize((3, 2), Image.Resampling.BOX)
        smooth = coarse.resize((head[2], head[3]), Image.Resampling.BILINEAR)
        small.paste(smooth.filter(ImageFilter.GaussianBlur(2)), head)
    file = BytesIO()
    small.save(file, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def has_spatial_attention(model: Any) -> bool:
    """Whether there are maps to show."""
    return getattr(model, "relation", "none") not in ("none", "c")


def attention_of(
    model: Any,
    transform: Any,
    images: Sequence[Image.Image],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> list[list[dict[str, Any]]]:
    """The spatial attention of each stage, of each image, for the page to draw.

    Returns:
        Of each image a list over stages of ``height``, ``width``, and ``values``: base64 of a byte
        a position, from 0 at the map's lowest to 255 at its highest weight, which are ``low`` and
        ``high``.
    """
    maps: list[list[dict[str, Any]]] = []
    for start in range(0, len(images), batch_size):
        batch = torch.stack([transform(image) for image in images[start : start + batch_size]])
        stages = attention_maps(model, batch.to(device))
        spatial = [stage.spatial for stage in stages if stage.spatial is not None]
        maps += [[_encode(weights[i]) for weights in spatial] for i in range(len(batch))]
    return maps


def _encode(weights: Tensor) -> dict[str, Any]:
    """A map of (H, W) weights."""
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
