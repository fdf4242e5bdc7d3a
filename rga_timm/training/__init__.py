"""The fine-tuning run: its options, its data, what it starts from, the loop, what it records."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rga_timm.training.config import ConfigError, TrainConfig
    from rga_timm.training.loop import train

__all__ = ["ConfigError", "TrainConfig", "train"]


def __getattr__(name: str) -> Any:
    # When asked for: the loop imports all of the package, and commands that only share options
    # with it start faster without.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rga_timm.training import config, loop

    return getattr(loop if name == "train" else config, name)
