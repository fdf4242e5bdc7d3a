"""The data sets, one small file each. Importing this registers them all."""

from . import (
    market1501,
    msmt17,
    pedestrians,
    veri776,
)

__all__ = [
    "market1501",
    "msmt17",
    "pedestrians",
    "veri776",
]
