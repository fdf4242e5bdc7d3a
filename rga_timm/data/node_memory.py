"""Memory that the ranks of a training run on one machine share.

It is a file in the system's shared memory that all of them map. Its name is deleted once they have
mapped it: the memory is freed when the last of them releases it or dies.
"""

import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import distributed as dist

_CGROUP = Path("/sys/fs/cgroup")  # of a container


class Node:
    """The ``ranks`` of this run on this machine; without torch.distributed, this process.

    All ranks of the run must create it, and call every method, together.
    """

    def __init__(self) -> None:
        self.group: Any = None
        self.rank, self.ranks, self._token = 0, [0], ""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self.rank = dist.get_rank()
            # Not the run's own group: a GPU's gives up after minutes of waiting. The run's
            # destroy_process_group() ends it: right after use, older torch hangs in that.
            self.group = dist.new_group(backend="gloo", timeout=timedelta(days=1))
            names = self._gather((socket.gethostname(), uuid.uuid4().hex))
            host = names[self.rank][0]
            self.ranks = [rank for rank, (other, _) in enumerate(names) if other == host]
            self._token = names[self.ranks[0]][1]
        self.is_first = self.rank == self.ranks[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait for all ranks at the end of the block; an error of one is a RuntimeError on all."""
        error: Exception | None = None
        try:
            yield
        except Exception as caught:  # not KeyboardInterrupt, which comes to all ranks
            error = caught
        failed = self._gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, text in enumerate(failed):
            if text is not None:
                raise RuntimeError(f"rank {rank} failed with {text}")

    def allocate(self, size: int) -> torch.Tensor:
        """Allocate (size,) uint8, the same memory in all ranks on the machine, or a MemoryError."""
        folder = shared_folder() if len(self.ranks) > 1 else None
        path = Path(folder or "", f"rga_timm-{self._token}")
        try:
            with self.together():
                if self.is_first:
                    check_free(size, folder)
                    if folder is not None:
                        _create(path, size)
            with self.together():
                if folder is None:
                    return torch.empty(size, dtype=torch.uint8)
                return torch.from_numpy(np.memmap(path, np.uint8, "r+"))
        finally:
            if self.is_first and folder is not None:
                path.unlink(missing_ok=True)

    def _gather(self, item: Any) -> list[Any]:
        """Return each rank's item, in the order of the ranks."""
        if self.group is None:
            return [item]
        items: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(items, item, group=self.group)
        return items


def shared_folder() -> Path:
    """Return the folder of shared memory; a temporary folder on systems without one."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def check_free(size: int, folder: Path | None = None) -> None:
    """Raise a MemoryError unless ``size`` bytes of RAM are free, and in ``folder`` for a file."""
    if size > (free := available_memory()):
        raise MemoryError(f"{size / 1e9:.2f} GB of memory are needed, {free / 1e9:.2f} GB are free")
    if folder is not None and size > (free := shutil.disk_usage(folder).free):
        raise MemoryError(
            f"{size / 1e9:.2f} GB are needed in {folder}, where {free / 1e9:.2f} GB are free. "
            "(A container may have been given little: docker run --shm-size gives it more.)"
        )


def available_memory() -> int:
    """Bytes of RAM that are free without swapping, in a container what is left of its limit.

    The limit is that of Linux's control groups, version 2. Page cache does not count as used.
    """
    available = int(psutil.virtual_memory().available)
    try:
        limit, used = (int((_CGROUP / f"memory.{n}").read_text()) for n in ("max", "current"))
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        cached = dict(line.split(" ", 1) for line in lines).get("inactive_file", 0)
        return max(0, min(available, limit - used + int(cached)))
    except (OSError, ValueError):  # no container, or no limit ("max")
        return available


def _create(path: Path, size: int) -> None:
    """Create an empty file and reserve its space: a write without room kills the process."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
