"""Loaders: reader → transform → batch.

The augmentation of an image depends on (seed, epoch, its place in the epoch's global batches)
alone, not on the number of workers or ranks, or on whether a run was resumed.
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
    """Load batches to train on. Call ``batch_sampler.set_epoch(epoch)`` before each epoch.

    The transform makes a tensor (3, H, W) of a PIL RGB image. It may draw from Python's, numpy's
    and torch's global random numbers, which ``seed``, at least 0, determines. The batch sampler is
    over ``reader.labels``. The other arguments are torch's `DataLoader`'s.

    Returns:
        A loader of (images (P·K / world_size, 3, H, W) float32, targets (…, 2) int64). A target is
        [label, camera].
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
    """Load every image once, in the reader's order. The last batch may be smaller.

    The transform makes a tensor (3, H, W) of a PIL RGB image, without randomness. The batches of
    all ranks, one rank after another, are those of one process: no image is repeated to make the
    ranks even, and a rank may have none. The other arguments are torch's `DataLoader`'s.

    Returns:
        A loader of (images (B, 3, H, W) float32, targets (B, 2) int64). A target is
        [label or pid, camera]; of a test split of tracklets [pid, camera, tracklet], (B, 3). The
        images of a tracklet may be on two ranks.

    Raises:
        ValueError: ``rank`` is not one of ``world_size``.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not one of the {world_size} ranks from 0")
    # Whole batches: features, whose last bits depend on the batch, are those of one process.
    batches = -(-len(reader) // batch_size)
    first, end = (batches * r // world_size * batch_size for r in (rank, rank + 1))
    return DataLoader(
        ReidDataset(reader, transform),
        batch_size=batch_size,
        sampler=range(first, min(end, len(reader))),
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),
    )


class _SampleKey(NamedTuple):
    """An image's index in the data set, and the seed of its augmentation."""

    image: int
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
        labelled = self.batch_sampler.num_labelled
        for number, batch in enumerate(batches):
            share = number * world_size + rank
            # The place in the global epoch; images without an identity have places of their own.
            rest = len(batch) - labelled
            places = [[share * labelled + i] for i in range(labelled)]
            places += [[share * rest + i, 1] for i in range(rest)]
            keys = []
            for place, image in zip(places, batch, strict=True):
                # A hash of all: neighbouring places get unrelated seeds.
                sequence = np.random.SeedSequence([self.seed, epoch, *place])
                keys.append(_SampleKey(image, int(sequence.generate_state(1, np.uint64)[0])))
            yield keys


class _SeededDataset(Dataset):
    """Reads an image with the random numbers of its own seed."""

    def __init__(self, dataset: ReidDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: _SampleKey) -> tuple[Any, torch.Tensor]:
        with _random_numbers_of(key.seed):
            return self.dataset[key.image]


@contextmanager
def _random_numbers_of(seed: int) -> Iterator[None]:
    """Seed the global random numbers, and restore them: they can be the training process's."""
    python, torch_cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002 - transforms may use the global one
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds GPUs too
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_cpu)
