"""The data sets, one small file each. Importing this registers them all."""

from . import (
    ilids_vid,
    market1501,
    mars,
    pedestrians,
)

__all__ = [
    "ilids_vid",
    "market1501",
    "mars",
    "pedestrians",
]
