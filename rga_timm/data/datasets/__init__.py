"""The data sets, one small file each. Importing this registers them all."""

from . import (
    folder,
    hf,
    market1501,
    pedestrians,
    table,
)

__all__ = [
    "folder",
    "hf",
    "market1501",
    "pedestrians",
    "table",
]
