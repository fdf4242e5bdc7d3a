from pathlib import Path

import numpy as np
from PIL import Image


def write_noise(path: Path, seed: int = 0) -> None:
    """An image of 16 by 32 pixels of noise, in the format that the file's name ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
