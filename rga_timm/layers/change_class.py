"""A finished module made an instance of a subclass of its class."""

from typing import Any

from torch import nn


def change_class(module: nn.Module, subclass: type[Any]) -> None:
    """Make a module an instance of ``subclass``, in place; parameters, buffers and hooks stay.

    ``subclass.__init__`` is not called: the subclass must need no state of its own, or the caller
    adds it.

    Raises:
        ValueError: If it is not a subclass of the module's class.
    """
    if not issubclass(subclass, type(module)):
        raise ValueError(
            f"a {type(module).__name__} cannot become a {subclass.__name__}, which is not a "
            f"subclass of {type(module).__name__}"
        )
    module.__class__ = subclass
