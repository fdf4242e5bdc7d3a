"""The fastest precision to train a network in, on the processor at hand."""

import copy
import logging

import torch
from torch import distributed as dist
from torch import nn

from rga_timm.evaluation.cost import create_images, make_step, take_turns

_logger = logging.getLogger(__name__)
_ROUNDS = 3


def fastest_amp_dtype(
    model: nn.Module, batch_size: int, img_size: tuple[int, int], device: torch.device,
    *, channels_last: bool = False,
) -> str | None:  # fmt: skip
    """Time a few training steps in float32 and with autocast to bfloat16, and log both.

    Args:
        model: With a classifier; a copy is run.
        batch_size: Images of a step.
        img_size: (height, width) in pixels.
        device: Where the model is.
        channels_last: The memory format.

    Returns:
        `bfloat16`, or None for float32; with torch.distributed the first process's for all.
    """
    choice: list[str | None] = [None]
    if not dist.is_initialized() or dist.get_rank() == 0:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            images = create_images(batch_size, img_size, str(device), channels_last=channels_last)
            trained = copy.deepcopy(model)
            dtypes = {"float32": None, "bfloat16": "bfloat16"}
            steps = {name: make_step(trained, images, "training", t) for name, t in dtypes.items()}
            take_turns(steps, 1, str(device))  # warm up
            times = {name: ms for name, (ms, _) in take_turns(steps, _ROUNDS, str(device)).items()}
        fastest = min(times, key=lambda name: times[name])
        rates = (f"{name} {1000 * batch_size / ms:.1f} images/s" for name, ms in times.items())
        _logger.info("--amp-dtype auto: %s; training in %s", ", ".join(rates), fastest)
        choice = [dtypes[fastest]]
    if dist.is_initialized():
        dist.broadcast_object_list(choice, src=0)
    return choice[0]
