"""Lay maps over their image."""

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torch import Tensor


def heat_map(weights: Tensor | np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Draw a map, from dark blue at its lowest value to bright yellow at its highest.

    Args:
        weights: (H, W), of any range.
        size: (width, height) of the picture in pixels, as in Pillow.

    Raises:
        ValueError: If the map has another shape, or values that are not finite.
    """
    values = np.asarray(weights.detach().cpu() if isinstance(weights, Tensor) else weights, float)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"a map is (H, W) of finite numbers, not {values.shape}")
    low, high = values.min(), values.max()
    # A constant map gets the middle of the scale.
    scaled = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    smooth = Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    colours = colormaps["viridis"](np.clip(np.asarray(smooth), 0, 1))[..., :3]
    return Image.fromarray((255 * colours).round().astype(np.uint8))


def overlay(image: Image.Image, weights: Tensor | np.ndarray, opacity: float = 0.5) -> Image.Image:
    """Lay a map over an image.

    Args:
        image: The image before preprocessing, of any size.
        weights: (H, W), such as an image's ``spatial`` weights in a :class:`StageAttention`.
        opacity: Opacity of the map, from 0 to 1.

    Raises:
        ValueError: As :func:`heat_map`, or for an opacity out of range.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is from 0 to 1, not {opacity}")
    return Image.blend(image.convert("RGB"), heat_map(weights, image.size), opacity)
