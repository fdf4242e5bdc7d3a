"""What a model costs: arithmetic, and time measured in turns with its alternatives."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rga_timm._version import __version__


def count_flops(model: nn.Module, image: Tensor) -> float:
    """Count the multiplications and additions of one image's (1, 3, H, W) forward pass.

    The model is left in eval mode. On the `meta` device nothing is computed.
    """
    model.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image)
    return float(counter.get_total_flops())


def create_images(
    batch_size: int, size: tuple[int, int], device: str, *, channels_last: bool = False
) -> Tensor:
    """Draw noise, (batch_size, 3, height, width)."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.randn(batch_size, 3, *size, device=device).to(memory_format=memory_format)


def make_step(
    model: nn.Module, images: Tensor, mode: str = "inference", amp_dtype: str | None = None
) -> Callable[[], None]:
    """Make a function that runs the model once, with autocast to `amp_dtype` if there is one.

    Either `inference`, a forward pass without gradients; or `training`, forward and backward
    without an optimizer, for which the model needs a classifier.
    """
    dtype = getattr(torch, amp_dtype) if amp_dtype else None
    autocast = torch.autocast(images.device.type, dtype=dtype, enabled=bool(dtype))

    def inference() -> None:
        model.eval()
        with torch.inference_mode(), autocast:
            model(images)

    labels = torch.arange(len(images), device=images.device)

    def training() -> None:
        model.train()
        model.zero_grad()
        with autocast:
            logits = model(images).float()
            loss = torch.nn.functional.cross_entropy(logits, labels % logits.shape[1])
        loss.backward()

    return inference if mode == "inference" else training


def take_turns(
    steps: Mapping[str, Callable[[], Any]], rounds: int, device: str
) -> dict[str, tuple[float, float]]:
    """Time several functions in turns, so that a machine that slows down slows all of them.

    Returns:
        For each name the median time in milliseconds, and the median ratio to the first one's time
        in the same round.
    """
    rows = [[timed(step, device) for step in steps.values()] for _ in range(rounds)]
    times = np.array(rows)  # (rounds, steps)
    of_all = zip(np.median(times, 0) * 1e3, np.median(times / times[:, :1], 0), strict=True)
    return {name: (float(t), float(ratio)) for name, (t, ratio) in zip(steps, of_all, strict=True)}


def timed(step: Callable[[], Any], device: str) -> float:
    """Run a function once, and return its time in seconds."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait for a GPU to finish."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def describe_machine(device: str) -> dict[str, str]:
    """Name the processor or GPU, the number of threads, and the versions that matter."""
    is_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else processor_name(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "rga_timm": __version__,
    }


def processor_name() -> str:
    """Name the processor, by its own name where the system tells it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
