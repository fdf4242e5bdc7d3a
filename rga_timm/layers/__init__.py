"""The layers of the paper."""

from .bn_neck import bn_neck, pass_through
from .change_class import change_class
from .relation_attention import RelationAttention
from .resample import resample_grid_weight
from .rga import RELATIONS, RGA, size_error

__all__ = [
    "RELATIONS",
    "RGA",
    "RelationAttention",
    "bn_neck",
    "change_class",
    "pass_through",
    "resample_grid_weight",
    "size_error",
]
