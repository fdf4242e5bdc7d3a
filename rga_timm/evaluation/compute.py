"""How a computation runs: device, batches, processes, memory. None of it changes a score."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

import torch

DEFAULT_TILE_MEMORY = 2**28  # bytes
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@dataclass(frozen=True)
class Compute:
    """Where and how models run and features are ranked.

    Attributes:
        device: Where the model runs and distances are computed.
        batch_size: Images embedded at a time.
        num_workers: Processes that read images.
        channels_last: Run the model in that memory format, often faster on GPUs.
        distributed: Share the work among the processes of torchrun's default group: each reads its
            part of the images and ranks its part of the queries. All must be given the same
            arguments, and all get the same result.
        progress: Show progress bars.
        tile_memory: Bytes for the distances that are held at a time.
    """

    device: torch.device | str = "cpu"
    batch_size: int = 128
    num_workers: int = 4
    channels_last: bool = False
    distributed: bool = False
    progress: bool = True
    tile_memory: int = DEFAULT_TILE_MEMORY


def check_device(device: str) -> None:
    """Raise a ValueError unless torch can compute on the device; no memory of a GPU is taken."""
    advice = "pass --device cpu, or cuda on a machine with a GPU"
    try:
        kind = torch.device(device)
        if kind.type not in ("cuda", "meta"):
            torch.empty(0, device=kind)
            return
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch has no such support
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {device}: {reason}; {advice}") from error
    if kind.type == "meta":
        raise ValueError(f"--device meta has no numbers; {advice}")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (kind.index or 0) >= gpus:
        finds = "no GPU" if not gpus else f"{gpus} GPUs, from cuda:0 to cuda:{gpus - 1}"
        raise ValueError(f"--device {device}: torch finds {finds}; {advice}")


def keep_freed_memory(device: str | torch.device = "cpu") -> bool:
    """Keep the memory of freed tensors for the next ones, if the device is a CPU.

    By default glibc returns every freed block above 32 MB to the system, which clears its pages for
    the next step's tensors. That may take as long as a small network's arithmetic
    (benchmarks/allocator.py measures it). The process keeps the memory of its largest step until it
    ends.

    Returns:
        Whether memory is kept: only with glibc on Linux.
    """
    if torch.device(device).type != "cpu" or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    # No block is mapped by itself; the heap never shrinks (-1 is the largest size).
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
