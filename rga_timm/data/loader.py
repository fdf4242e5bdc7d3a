"""Loaders: reader → transform → batch.

The augmentation of an image depends on (seed, epoch, its place in the epoch's global batches)
alone: the number of workers, the number of ranks and a resumed run do not change what is learnt
from.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from .reader import ReidDataset, ReidReader
from .sampler import IdentityBatchSampler

Transform = Callable[[Any], Any]


def create_train_loader(
    reader: ReidReader,
    transform: Transform,
    batch_sampler: IdentityBatchSampler,
    *,
    num_workers: int = 4,
    seed: int = 0,
    pin_memory: bool = False,
    persistent_workers: bool = True,
) -> DataLoader:
    """Batches to train on. Call ``batch_sampler.set_epoch(epoch)`` before each epoch.

    Args:
        reader: The training split.
        transform: From a PIL RGB image to a tensor (3, H, W). It may draw from Python's, numpy's
            and torch's global random numbers.
        batch_sampler: Over ``reader.labels``.
        num_workers: Processes that read; 0 reads in this one.
        seed: Of the augmentation; at least 0.
        pin_memory: Whether to copy batches to memory that a GPU reads faster.
        persistent_workers: Whether to keep the processes from epoch to epoch.

    Returns:
        A loader of (images (P·K / world_size, 3, H, W) float32, targets (…, 2) int64), a target
        being [label, camera].
    """
    return DataLoader(
        _SeededDataset(ReidDataset(reader, transform)),
        batch_sampler=_SeededBatches(batch_sampler, seed),
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=persistent_workers and num_workers > 0,
        generator=torch.Generator(),  # or each epoch takes a number from torch's global ones
    )


def create_eval_loader(
    reader: ReidReader,
    transform: Transform,
    batch_size: int = 128,
    *,
    num_workers: int = 4,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader:
    """Every image once, in the reader's order, the last batch as small as it comes.

    Args:
        reader: A split.
        transform: From a PIL RGB image to a tensor (3, H, W), without randomness.
        batch_size: Images in a batch.
        num_workers: Processes that read; 0 reads in this one.
        rank: This process. Rank after rank, their batches are those of one process: no image is
            repeated to make the ranks even, and a rank may have none.
        world_size: How many processes share the images.
        pin_memory: Whether to copy batches to memory that a GPU reads faster.

    Returns:
        A loader of (images (B, 3, H, W) float32, targets (B, 2) int64), a target being
        [label or pid, camera]; (B, 3), [pid, camera, tracklet], of a test split of tracklets. Two
        ranks may have a part each of a tracklet.

    Raises:
        ValueError: ``rank`` is not one of ``world_size``.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not one of the {world_size} ranks from 0")
    # Whole batches: features, whose last bits depend on the batch, are those of one process.
    batches = -(-len(reader) // batch_size)
    first, end = (batches * r // world_size * batch_size for r in (rank, rank + 1))
    share = range(first, min(end, len(reader)))
    return DataLoader(
        ReidDataset(reader, transform),
        batch_size=batch_size,
        sampler=share,  # a range is all that a sampler has to be
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),
    )


class _SampleKey(NamedTuple):
    image: int  # its index in the data set
    seed: int


class _SeededBatches(Sampler[list[_SampleKey]]):
    """Gives each index of a batch sampler the seed of its augmentation.

    The seed travels with the index, as persistent workers do not learn of a new epoch otherwise.
    """

    def __init__(self, batch_sampler: IdentityBatchSampler, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"the seed is at least 0, not {seed}")
        self.batch_sampler = batch_sampler
        self.seed = seed

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[_SampleKey]]:
        # Both now, not at the first next(): they must be of one epoch.
        return self._with_seeds(list(self.batch_sampler), self.batch_sampler.epoch)

    def _with_seeds(self, batches: list[list[int]], epoch: int) -> Iterator[list[_SampleKey]]:
        rank, world_size = self.batch_sampler.rank, self.batch_sampler.world_size
        for number, batch in enumerate(batches):
            place = (number * world_size + rank) * len(batch)  # in the global epoch
            seeds = (self._seed_of(epoch, place + i) for i in range(len(batch)))
            yield [_SampleKey(*pair) for pair in zip(batch, seeds, strict=True)]

    def _seed_of(self, epoch: int, place: int) -> int:
        # A hash of the three: neighbouring places get unrelated seeds.
        sequence = np.random.SeedSequence([self.seed, epoch, place])
        return int(sequence.generate_state(1, np.uint64)[0])


class _SeededDataset(Dataset):
    """Read an image with the random numbers of its own seed."""

    def __init__(self, dataset: ReidDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: _SampleKey) -> tuple[Any, torch.Tensor]:
        with _random_state_kept():
            _seed_all(key.seed)
            return self.dataset[key.image]


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Put the global random numbers back: without workers they are the training process's."""
    python, torch_cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002 - transforms may use the global one
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_cpu)


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    # Not torch.manual_seed, which would seed the GPUs too.
    torch.default_generator.manual_seed(seed)
