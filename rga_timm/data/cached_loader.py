"""Training batches from an `ImageCache`, augmented on the device.

Loader processes only draw the augmentation. A batch goes to the device as bytes, not floats.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from timm.data.transforms import str_to_interp_mode
from torch.utils.data import DataLoader, Dataset

from .cache import ImageCache
from .loader import _random_numbers_of, _SampleKey, _SeededBatches
from .sampler import IdentityBatchSampler
from .transforms import TrainTransform, send


def create_cached_train_loader(
    cache: ImageCache,
    transform: TrainTransform,
    batch_sampler: IdentityBatchSampler,
    *,
    targets: np.ndarray | torch.Tensor,
    device: torch.device | str = "cpu",
    num_workers: int = 4,
    seed: int = 0,
    persistent_workers: bool = True,
) -> "CachedTrainLoader":
    """Load the batches of `create_train_loader`, but from the cache's images.

    See `TrainTransform.apply_batch` for the difference. The transform must have the cache's image
    size and interpolation; ``targets`` are (n, 2) integers, [label, camera] of each image. Batches
    are augmented and returned on ``device``; worker processes draw the augmentation.

    Raises:
        ValueError: Cache, transform and targets do not fit each other.
    """
    targets = torch.as_tensor(targets, dtype=torch.int64)
    shape, wanted = tuple(targets.shape), transform.enlarge.interpolation
    if shape != (len(cache), 2):
        text = f"targets are (n, 2), [label, camera] of each of the {len(cache)} images"
        raise ValueError(f"{text}, not {shape}")
    if cache.img_size != transform.img_size:
        text = f"the cached images are {cache.img_size} (height, width)"
        raise ValueError(f"{text}, the transform is for {transform.img_size}")
    if str_to_interp_mode(cache.interpolation) != wanted:
        found = f"the cache was resized by {cache.interpolation!r}"
        raise ValueError(f"{found}, the transform's interpolation is {wanted.value!r}")
    draws = DataLoader(
        _Draws(transform),
        batch_size=None,  # the data set makes batches itself
        sampler=_SeededBatches(batch_sampler, seed),
        num_workers=num_workers,
        persistent_workers=persistent_workers and num_workers > 0,
        generator=torch.Generator(),  # or each epoch takes a number from torch's global ones
    )
    return CachedTrainLoader(cache, transform, draws, targets, torch.device(device))


@dataclass(frozen=True)
class CachedTrainLoader:
    """Iterates over (images (B, 3, H, W) float32, targets (B, 2) int64), both on the device."""

    cache: ImageCache
    transform: TrainTransform
    draws: DataLoader
    targets: torch.Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        # iter() plans the epoch here and not at the first next(), as in the plain loader.
        return itertools.starmap(self._load, iter(self.draws))

    def _load(
        self, indices: torch.Tensor, drawn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images = send(self._gather(indices), self.device)
        return self.transform.apply_batch(images, drawn), send(self.targets[indices], self.device)

    def _gather(self, indices: torch.Tensor) -> torch.Tensor:
        """Copy images (B, 3, H, W) uint8 on the cache's device, pinned for a GPU to read faster."""
        images = self.cache.images
        if images.device.type != "cpu" or self.device.type != "cuda":
            return images.index_select(0, send(indices, images.device))
        # torch keeps this memory, and uses it again when the copy to the GPU is done.
        batch = images.new_empty(len(indices), *images.shape[1:], pin_memory=True)
        return torch.index_select(images, 0, indices, out=batch)


class _Draws(Dataset):
    """Draws the augmentation of a batch, with the random numbers of each image's own seed."""

    def __init__(self, transform: TrainTransform) -> None:
        self.transform = transform

    def __getitem__(self, batch: list[_SampleKey]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return indices (B,) of the images, and their augmentation (B, 8), int64."""
        drawn = []
        for key in batch:
            with _random_numbers_of(key.seed):
                drawn.append(self.transform.draw())
        indices = torch.tensor([key.image for key in batch])
        return indices, torch.tensor(drawn, dtype=torch.int64)
