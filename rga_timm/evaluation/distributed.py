"""The processes of torchrun: who does which share, and how everybody gets the whole.

Each function takes `distributed`: False is a single process, whatever process groups there are, so
that one of them can evaluate something on its own.
"""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch
from torch import distributed as dist


def share(n: int, distributed: bool) -> range:
    """This process's part of n things; process after process, the parts are all of them."""
    rank, world_size = rank_and_world_size(distributed)
    return range(n * rank // world_size, n * (rank + 1) // world_size)


def rank_and_world_size(distributed: bool) -> tuple[int, int]:
    """Of the default process group; 0 and 1 of a single process.

    Raises:
        RuntimeError: no process group was made.
    """
    if not distributed:
        return 0, 1
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "distributed=True needs a process group: start with torchrun, and call "
            "torch.distributed.init_process_group first"
        )
    return dist.get_rank(), dist.get_world_size()


def gather_rows(rows: np.ndarray, distributed: bool) -> np.ndarray:
    """The rows of all processes, in the order of the processes, the same in each process.

    Args:
        rows: (n, …) numbers; n may differ between the processes, all else may not.
        distributed: Whether there are several processes.
    """
    rank, world_size = rank_and_world_size(distributed)
    if world_size == 1:
        return rows
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    sizes = torch.zeros(world_size, dtype=torch.int64, device=device)
    sizes[rank] = len(rows)
    dist.all_reduce(sizes)
    parts = []
    for source, size in enumerate(sizes.tolist()):
        # Broadcasts, because the parts differ in size, and nobody holds more than the result.
        part = (
            torch.from_numpy(np.ascontiguousarray(rows)).to(device)
            if source == rank
            else torch.from_numpy(np.empty((size, *rows.shape[1:]), rows.dtype)).to(device)
        )
        if size:
            dist.broadcast(part, src=source)
        parts.append(part.cpu().numpy())
    return np.concatenate(parts)


def init_distributed(device: str) -> tuple[str, int, int]:
    """Join the processes that torchrun started.

    Args:
        device: The device asked for.

    Returns:
        This process's own device (a GPU of its own for `cuda`), its rank, and how many processes
        there are. A single process joins nothing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device, 0, 1
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    # Exchanged data lies on the CPU, and one process may wait long for another.
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    return device, dist.get_rank(), dist.get_world_size()
