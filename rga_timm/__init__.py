"""Relation-Aware Global Attention models for timm.

Importing this package registers its models, so that ``timm.create_model('rga_resnet50')`` and every
tool that takes a timm model know them.
"""

from . import models
from ._version import __version__
from .hub import list_checkpoints

__all__ = ["__version__", "list_checkpoints", "models"]
