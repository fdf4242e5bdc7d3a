"""The data sets, one small file each. Importing this registers them all."""

from . import (
    cuhk01,
    cuhk03,
    market1501,
    pedestrians,
)

__all__ = [
    "cuhk01",
    "cuhk03",
    "market1501",
    "pedestrians",
]
