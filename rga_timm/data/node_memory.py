"""Memory that the ranks of a training run on one machine have in common.

It is a file in the system's shared memory that all of them map. Its name is deleted as soon as they
have: the memory is freed when the last of them releases it or dies, and nothing can stay behind.
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
    """The ranks of this run that are on this machine. Without torch.distributed, this process.

    Made, and every method called, by all ranks of the run together.

    Attributes:
        ranks: On this machine, in order.
        is_first: Whether this is the first of them, which does what is to be done once.
    """

    def __init__(self) -> None:
        self.group: Any = None
        self.rank, self.ranks, self._token = 0, [0], ""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self.rank = dist.get_rank()
            # Not the run's own group: a GPU's gives up after minutes of waiting. It is left to the
            # run's destroy_process_group(): right after use, older torch waits for ever in there.
            self.group = dist.new_group(backend="gloo", timeout=timedelta(days=1))
            names = self._gather((socket.gethostname(), uuid.uuid4().hex))
            host = names[self.rank][0]
            self.ranks = [rank for rank, (other, _) in enumerate(names) if other == host]
            self._token = names[self.ranks[0]][1]
        self.is_first = self.rank == self.ranks[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait for all ranks at the end of the block. An error of one is an error of all.

        Raises:
            RuntimeError: There was an error on another rank, which it names.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        # A KeyboardInterrupt goes past this: it comes to all ranks, or their connection breaks.
        failed = self._gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, text in enumerate(failed):
            if text is not None:
                raise RuntimeError(f"rank {rank} failed with {text}")

    def allocate(self, size: int) -> torch.Tensor:
        """Memory of ``size`` bytes, (size,) uint8, the same in all ranks on the machine.

        Raises:
            MemoryError: There is less free, of RAM or of shared memory.
        """
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
        """Each rank's item, in the order of the ranks."""
        if self.group is None:
            return [item]
        items: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(items, item, group=self.group)
        return items


def shared_folder() -> Path:
    """Where files are memory that processes share; on systems without that, a temporary folder."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def check_free(size: int, folder: Path | None = None) -> None:
    """Raise a MemoryError unless ``size`` bytes of RAM are free, and in ``folder`` for a file."""
    available = available_memory()
    if size > available:
        raise MemoryError(f"{_gb(size)} GB of memory are needed, {_gb(available)} GB are free")
    if folder is not None and size > (free := shutil.disk_usage(folder).free):
        raise MemoryError(
            f"{_gb(size)} GB are needed in {folder}, where {_gb(free)} GB are free. "
            "(A container may have been given little: docker run --shm-size gives it more.)"
        )


def available_memory() -> int:
    """Bytes of RAM that can be had without swapping, in a container what is left of its limit.

    The limit is that of Linux's control groups, version 2. Page cache does not count as used.
    """
    available = int(psutil.virtual_memory().available)
    try:
        limit, used = (
            int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        cached = dict(line.split(" ", 1) for line in lines).get("inactive_file", 0)
        return max(0, min(available, limit - used + int(cached)))
    except (OSError, ValueError):  # no container, or no limit ("max")
        return available


def _create(path: Path, size: int) -> None:
    """An empty file whose space is set aside: otherwise a write without room kills the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.truncate(descriptor, size)
    finally:
        os.close(descriptor)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"
