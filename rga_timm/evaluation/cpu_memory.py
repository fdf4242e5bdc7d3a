"""Memory of a process that computes on a CPU."""

from __future__ import annotations

import ctypes
import sys

import torch

# Of glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory(device: str | torch.device = "cpu") -> bool:
    """On a CPU keep the memory of freed tensors for the next ones, instead of handing it back.

    By itself glibc gives every block above 32 MB back to the system when it is freed. The system
    then clears its pages again for the next step's tensors, page by page, which may take as long as
    a small network's arithmetic (benchmark_allocator.py measures it). The process keeps the memory
    of its largest step until it ends.

    Args:
        device: What is computed on; for others than a CPU nothing is done.

    Returns:
        Whether memory is kept: on Linux by glibc, which alone can do it.
    """
    if torch.device(device).type != "cpu" or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    # No block is mapped by itself; the heap never shrinks (-1 is the largest size).
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
