"""Share work among the processes of torchrun, and gather the results in all of them.

Each function takes `distributed`: False means a single process, even if there is a process group,
so that one process can evaluate something on its own.
"""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch
from torch import distributed as dist


def share(n: int, distributed: bool) -> range:
    """Return this process's part of n things; the parts follow each other in order."""
    rank, world_size = rank_and_world_size(distributed)
    return range(n * rank // world_size, n * (rank + 1) // world_size)


def rank_and_world_size(distributed: bool) -> tuple[int, int]:
    """Return those of the default process group; 0 and 1 for a single process."""
    if not distributed:
        return 0, 1
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "distributed=True needs a process group: start with torchrun, and call "
            "torch.distributed.init_process_group first"
        )
    return dist.get_rank(), dist.get_world_size()


def gather_rows(rows: np.ndarray, distributed: bool) -> np.ndarray:
    """Return the rows (n, …) of all processes, in their order; only n may differ between them."""
    rank, world_size = rank_and_world_size(distributed)
    if world_size == 1:
        return rows
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    sizes = torch.zeros(world_size, dtype=torch.int64, device=device)
    sizes[rank] = len(rows)
    dist.all_reduce(sizes)
    parts = []
    for source, size in enumerate(sizes.tolist()):
        # Broadcasts, because the parts differ in size, and no process holds more than the result.
        own = rows if source == rank else np.empty((size, *rows.shape[1:]), rows.dtype)
        part = torch.from_numpy(np.ascontiguousarray(own)).to(device)
        if size:
            dist.broadcast(part, src=source)
        parts.append(part.cpu().numpy())
    return np.concatenate(parts)


def init_distributed(device: str) -> tuple[str, int, int]:
    """Join the processes that torchrun started, if there are several.

    Returns:
        This process's device (a GPU of its own for `cuda`), its rank, and the number of processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device, 0, 1
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    # Exchanged data is on the CPU, and one process may wait long for another.
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    return device, dist.get_rank(), dist.get_world_size()
