"""Change the class of a finished module."""

from typing import Any

from torch import nn


def change_class(module: nn.Module, subclass: type[Any]) -> None:
    """Make a module an instance of ``subclass``, in place; parameters, buffers and hooks stay.

    ``subclass.__init__`` is not called; the caller adds what state the subclass needs.

    Raises:
        ValueError: If it is not a subclass of the module's class.
    """
    if not issubclass(subclass, type(module)):
        name = type(module).__name__
        raise ValueError(f"a {name} cannot become a {subclass.__name__}, which is not a subclass")
    module.__class__ = subclass
