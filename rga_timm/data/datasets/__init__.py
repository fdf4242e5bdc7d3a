"""The data sets, one small file each. Importing this registers them all."""

from . import (
    cuhk01,
    cuhk03,
    grid,
    ilids_vid,
    market1501,
    mars,
    msmt17,
    occluded_reid,
    partial_reid,
    pedestrians,
    prid450s,
    prid2011,
    veri776,
    viper,
)

__all__ = [
    "cuhk01",
    "cuhk03",
    "grid",
    "ilids_vid",
    "market1501",
    "mars",
    "msmt17",
    "occluded_reid",
    "partial_reid",
    "pedestrians",
    "prid450s",
    "prid2011",
    "veri776",
    "viper",
]
