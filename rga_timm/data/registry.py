"""Data sets by name."""

import difflib
from collections.abc import Callable
from pathlib import Path

from .reader import ReidSplits

Factory = Callable[[Path | None], ReidSplits]

_factories: dict[str, Factory] = {}


def register_dataset(name: str) -> Callable[[Factory], Factory]:
    """Decorate a function from a root folder to a `ReidSplits`, to be found under ``name``.

    Raises:
        ValueError: The name is taken.
    """

    def register(factory: Factory) -> Factory:
        if name in _factories:
            raise ValueError(f"a data set named {name!r} is registered already")
        _factories[name] = factory
        return factory

    return register


def list_datasets() -> list[str]:
    """The names that `create_dataset` knows, sorted."""
    return sorted(_factories)


def create_dataset(name: str, root: str | Path | None = None) -> ReidSplits:
    """Read a data set.

    Args:
        name: One of `list_datasets`.
        root: Folder of the data set, or the folder above it; ``~`` is the home directory.
            Only data sets that make themselves (`pedestrians`) do without.

    Raises:
        ValueError: There is no such data set, or its files are not named as they should be.
        FileNotFoundError: ``root`` does not hold the data set.
    """
    if name not in _factories:
        close = difflib.get_close_matches(name.lower(), _factories, n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        known = ", ".join(list_datasets())
        raise ValueError(f"unknown data set {name!r}: {hint}The known ones are {known}")
    return _factories[name](None if root is None else Path(root).expanduser())
