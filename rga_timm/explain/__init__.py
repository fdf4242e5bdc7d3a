"""Show what a model looks at: attention, relations of a position, class activation, overlays."""

from rga_timm.explain.attention import StageAttention, attention_maps
from rga_timm.explain.class_activation import similarity_activation
from rga_timm.explain.overlay import heat_map, overlay
from rga_timm.explain.relations import Relations, relations_of

__all__ = [
    "Relations",
    "StageAttention",
    "attention_maps",
    "heat_map",
    "overlay",
    "relations_of",
    "similarity_activation",
]
