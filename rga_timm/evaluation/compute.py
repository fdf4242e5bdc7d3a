"""How a computation runs: device, batches, processes, memory. None of it changes a score."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DEFAULT_TILE_MEMORY = 2**28  # bytes


@dataclass(frozen=True)
class Compute:
    """Where and how models run and features are ranked.

    Attributes:
        device: Where the model runs and distances are computed.
        batch_size: Images embedded at a time.
        num_workers: Processes that read images.
        channels_last: Run the model in that memory format, often faster on GPUs.
        distributed: The processes of torchrun's default group share the work: each one reads its
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
