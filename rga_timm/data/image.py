"""Image files as upright 8-bit RGB pixels: the one place where they are decoded."""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

# The usual highest values of images: of floats, and of 8, 10, 12, 14 and 16 bits.
_HIGHEST = (1, 255, 1023, 4095, 16383, 65535)
# What of Pillow's `info` can hold an orientation.
_ORIENTED = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}


class UnreadableImageError(RuntimeError):
    """An image that cannot be decoded, for whatever reason; names its file."""

    @classmethod
    def of(cls, name: str | Path, error: Exception) -> "UnreadableImageError":
        """Say which image cannot be read, and why."""
        return cls(f"cannot read the image {name}: {reason_of(error)}")


def load_image(path: str | Path) -> Image.Image:
    """Read an image file as `decode` does, or raise an UnreadableImageError."""
    try:
        return decode(path)
    except Exception as error:
        raise UnreadableImageError.of(path, error) from error


def decode(file: str | Path | BinaryIO, max_pixels: int | None = None) -> Image.Image:
    """Decode an image: 8-bit RGB, upright as its EXIF orientation says.

    Grey images of more than 8 bits, or of floats, are scaled: from 0 to the smallest usual highest
    value (1, or that of 8, 10, 12, 14 or 16 bits) that holds all their values; or from their own
    lowest to highest value, if there is none or they fill less than a 16th of that. Pillow itself
    reads colours of 16 bits as their upper 8 bits.

    With ``max_pixels``, larger images are a DecompressionBombError before they are decoded. What
    Pillow raises on a broken file depends on the format and on where it is broken: any Exception.
    """
    with Image.open(file) as image:
        if max_pixels is not None and image.width * image.height > max_pixels:
            size = f"{image.width} x {image.height}"
            raise Image.DecompressionBombError(f"{size} pixels are more than {max_pixels:,}")
        image.load()  # which turns a TIFF upright
        if not _ORIENTED.isdisjoint(image.info):  # spares most images the search
            _turn_upright(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return _scaled_to_8_bits(image).convert("RGB")
        return image.convert("RGB")


def reason_of(error: BaseException) -> str:
    """Say what an error was, with its kind where its text alone says little."""
    if isinstance(error, OSError | SyntaxError | ValueError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF data say nothing about the pixels, which are whole
        return


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale a grey image as `decode` says; pixels that are not finite are black."""
    values = np.asarray(image).astype(np.float64)
    is_finite = np.isfinite(values)
    if not is_finite.any():
        raise ValueError("all pixels are NaN or infinite")
    low, high = values[is_finite].min(), values[is_finite].max()
    usual = next((highest for highest in _HIGHEST if high <= highest), math.inf)
    if low >= 0 and high >= usual / 16:
        low, high = 0.0, usual
    scaled = (np.where(is_finite, values, low) - low) * (255 / max(high - low, 1e-300))
    return Image.fromarray(scaled.round().astype(np.uint8))
