"""What a piece of code computes and keeps, seen from the dispatcher."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorSizes(TorchDispatchMode):
    """Notes the shape of every tensor that any operator returns, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.shapes.append((str(func), tuple(leaf.shape)))
        return out

    def of_at_least(self, elements: int) -> list[tuple[str, tuple[int, ...]]]:
        return [(f, s) for f, s in self.shapes if torch.Size(s).numel() >= elements]


@contextmanager
def saved_bytes(exclude: list[torch.Tensor]) -> Iterator[dict[int, int]]:
    """Bytes of each distinct storage that autograd keeps for backward, ``exclude`` left out."""
    known = {t.untyped_storage().data_ptr() for t in exclude}
    saved: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        yield saved
