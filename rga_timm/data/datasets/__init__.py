"""The data sets, one small file each. Importing this registers them all."""

from . import (
    grid,
    market1501,
    msmt17,
    occluded_reid,
    partial_reid,
    pedestrians,
    prid2011,
    prid450s,
    veri776,
    viper,
)

__all__ = [
    "grid",
    "market1501",
    "msmt17",
    "occluded_reid",
    "partial_reid",
    "pedestrians",
    "prid2011",
    "prid450s",
    "veri776",
    "viper",
]
