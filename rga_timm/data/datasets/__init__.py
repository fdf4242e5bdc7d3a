"""The data sets, one small file each. Importing this registers them all."""

from . import (
    grid,
    market1501,
    occluded_reid,
    partial_reid,
    pedestrians,
    prid450s,
    prid2011,
    viper,
)

__all__ = [
    "grid",
    "market1501",
    "occluded_reid",
    "partial_reid",
    "pedestrians",
    "prid450s",
    "prid2011",
    "viper",
]
