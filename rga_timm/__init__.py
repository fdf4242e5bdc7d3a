"""Relation-Aware Global Attention models for timm.

Importing this package registers its models, so that ``timm.create_model('rga_resnet50')`` and every
tool that takes a timm model know them.
"""

from typing import TYPE_CHECKING, Any

from . import models
from ._version import __version__

if TYPE_CHECKING:
    from .hub import list_checkpoints

__all__ = ["__version__", "list_checkpoints", "models"]


def __getattr__(name: str) -> Any:
    """Look up ``list_checkpoints`` once it is asked for.

    It needs the evaluation, whose import takes several times as long as that of the models, which
    is all that timm's tools need.
    """
    if name == "list_checkpoints":
        from .hub import list_checkpoints

        return list_checkpoints
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
