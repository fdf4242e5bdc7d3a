"""Run a model and look at the inputs of its attention modules."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rga_timm.layers import RGA


def attention_modules(model: nn.Module) -> dict[str, RGA]:
    """The attention modules by name, from input to output, or a ValueError if there are none."""
    modules = {name: m for name, m in model.named_modules() if isinstance(m, RGA)}
    if not modules:
        raise ValueError(
            f"{type(model).__name__} has no relation-aware attention: it is not an RGA model, or "
            "was made with relation='none'"
        )
    return modules


@contextmanager
def restored_modes(model: nn.Module) -> Iterator[None]:
    """Restore the mode of each module afterwards, training or not."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def visit_inputs(model: Any, images: Tensor, visit: Callable[[str, RGA, Tensor], None]) -> None:
    """Run an RGA model; call ``visit`` with each attention module's name, itself, and its input."""
    modules = attention_modules(model)
    if not hasattr(model, "img_size"):
        name = type(model).__name__
        raise ValueError(f"{name} is not a whole model: make it without features_only")
    expected = ", ".join(map(str, (model.in_chans, *model.img_size)))
    if ", ".join(map(str, images.shape[1:])) != expected:
        raise ValueError(f"images must be (B, {expected}), preprocessed; got {tuple(images.shape)}")

    def hook(name: str, module: Any, args: tuple[Tensor]) -> None:
        visit(name, module, args[0])

    handles = [m.register_forward_pre_hook(partial(hook, name)) for name, m in modules.items()]
    try:
        with restored_modes(model), torch.no_grad():
            model.eval()
            model.forward_features(images)
    finally:
        for handle in handles:
            handle.remove()
