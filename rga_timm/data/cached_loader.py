"""Training batches from an `ImageCache`, augmented on the device.

Loader processes only draw the augmentation of each image. A batch is sent to the device as bytes, a
quarter of the size of floats.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from timm.data.transforms import str_to_interp_mode
from torch.utils.data import DataLoader, Dataset

from .cache import ImageCache
from .loader import _random_state_kept, _SampleKey, _seed_all, _SeededBatches
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
    """The batches of `create_train_loader`, except that images are enlarged from the cache.

    See `TrainTransform.apply_batch`. Call ``batch_sampler.set_epoch(epoch)`` before each epoch.

    Args:
        cache: Of the training split's images.
        transform: By `train_transform`, for images of the cache's size and interpolation.
        batch_sampler: Over the labels in ``targets``.
        targets: (n, 2) integers, [label, camera] of each image.
        device: Where batches are wanted, and where they are augmented.
        num_workers: Processes that draw the augmentation; 0 draws in this one.
        seed: Of the augmentation; at least 0.
        persistent_workers: Whether to keep the processes from epoch to epoch.

    Raises:
        ValueError: Cache, transform and targets do not fit each other.
    """
    targets = torch.as_tensor(targets, dtype=torch.int64)
    if targets.shape != (len(cache), 2):
        raise ValueError(
            f"targets are (n, 2), [label, camera] of each of the {len(cache)} cached images, "
            f"not {tuple(targets.shape)}"
        )
    if cache.img_size != transform.img_size:
        raise ValueError(
            f"the cached images are {cache.img_size} (height, width), "
            f"the transform is for {transform.img_size}"
        )
    if str_to_interp_mode(cache.interpolation) != transform.enlarge.interpolation:
        raise ValueError(
            f"the cached images were resized by {cache.interpolation!r}, the transform's "
            f"interpolation is {transform.enlarge.interpolation.value!r}"
        )
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
        # The epoch is planned here and not at the first next(), as by the plain loader.
        return self._load(iter(self.draws))

    def _load(
        self, draws: Iterator[tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for indices, drawn in draws:
            images = send(self._gather(indices), self.device)
            targets = send(self.targets[indices], self.device)
            yield self.transform.apply_batch(images, drawn), targets

    def _gather(self, indices: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8, where the cache is; from RAM, in memory that a GPU reads faster."""
        images = self.cache.images
        if images.device.type != "cpu" or self.device.type != "cuda":
            return images.index_select(0, send(indices, images.device))
        batch = torch.empty(
            len(indices), *images.shape[1:], dtype=images.dtype, pin_memory=True
        )  # of memory that torch keeps, and gives out again when the copy is done
        return torch.index_select(images, 0, indices, out=batch)


class _Draws(Dataset):
    """The augmentation of a batch, drawn with the random numbers of each image's own seed."""

    def __init__(self, transform: TrainTransform) -> None:
        self.transform = transform

    def __getitem__(self, batch: list[_SampleKey]) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices (B,) of the images, and their augmentation (B, 8), int64."""
        drawn = []
        with _random_state_kept():
            for key in batch:
                _seed_all(key.seed)
                drawn.append(self.transform.draw())
        indices = torch.tensor([key.image for key in batch])
        return indices, torch.tensor(drawn, dtype=torch.int64)
