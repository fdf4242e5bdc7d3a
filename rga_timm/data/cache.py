"""Decoded, resized images in memory, so that a GPU need not wait for files."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from timm.data.transforms import str_to_interp_mode
from torch.utils.data import DataLoader
from torchvision import transforms as T
from tqdm import tqdm

from .node_memory import Node
from .reader import ReidDataset, ReidReader

_BATCH = 32  # images that a process sends at a time


class ImageCache(AbstractContextManager):
    """The images of a reader, decoded and resized, as (n, 3, H, W) uint8 in memory.

    Made by `fill`. ``interpolation`` is how they were resized, as timm names it.
    """

    def __init__(self, images: torch.Tensor, interpolation: str = "bilinear") -> None:
        self._images: torch.Tensor | None = images
        self.interpolation = interpolation

    @staticmethod
    def required_bytes(n: int, img_size: tuple[int, int]) -> int:
        """Compute how many bytes ``n`` images of (height, width) pixels take."""
        return n * 3 * img_size[0] * img_size[1]

    @classmethod
    def fill(
        cls,
        reader: ReidReader,
        img_size: tuple[int, int] = (256, 128),
        interpolation: str = "bilinear",
        *,
        allowed_gb: float | None = None,
        num_workers: int = 4,
        progress: bool = True,
    ) -> "ImageCache":
        """Read all images of a reader.

        With torch.distributed, all ranks must call this together. Those on one machine share one
        cache, which the first of them fills; an error of one is raised on all. ``img_size`` is
        (height, width) in pixels, ``allowed_gb`` the limit on each machine in GB (10⁹ bytes), None
        for all free memory. ``num_workers`` processes read for each rank; with 0, this one does.

        Raises:
            ValueError: It takes more than is allowed.
            MemoryError: It takes more than is free.
            RuntimeError: An image cannot be read, or there was an error on another rank.
        """
        needed = cls.required_bytes(len(reader), img_size)
        if allowed_gb is not None and needed > allowed_gb * 1e9:
            gb = needed / 1e9
            digits = 2 if f"{gb:.2f}" != f"{allowed_gb:.2f}" else 6
            text = f"caching {len(reader)} images of {img_size[0]}x{img_size[1]} needs"
            figures = f"{gb:.{digits}f} GB, --cache allows {allowed_gb:.{digits}f} GB"
            raise ValueError(f"{text} {figures}")
        resize = T.Resize(tuple(img_size), str_to_interp_mode(interpolation))
        node = Node()
        images = node.allocate(needed).view(len(reader), 3, *img_size)
        with node.together():
            if node.is_first:
                loader: DataLoader = DataLoader(
                    ReidDataset(reader, T.Compose([resize, T.PILToTensor()])),
                    batch_size=_BATCH,
                    num_workers=num_workers * len(node.ranks),
                    generator=torch.Generator(),  # or it takes a number from torch's global ones
                )
                hidden = None if progress else True
                bar = tqdm(total=len(reader), desc="caching images", unit="img", disable=hidden)
                with bar:
                    for batch, into in zip(loader, images.split(_BATCH), strict=False):
                        into[:] = batch[0]
                        bar.update(len(into))
        return cls(images, interpolation)

    @property
    def images(self) -> torch.Tensor:
        """(n, 3, H, W) uint8; a ValueError if the cache is closed."""
        if self._images is None:
            raise ValueError("the image cache is closed")
        return self._images

    @property
    def img_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "ImageCache":
        """Copy the cache to a device, or raise a MemoryError if it has no room. Close this one."""
        device = torch.device(device)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if (needed := self.images.nbytes) > free:
                text = f"the image cache needs {needed / 1e9:.2f} GB"
                raise MemoryError(f"{text}, {device} has {free / 1e9:.2f} GB free")
        return ImageCache(self.images.to(device), self.interpolation)

    def close(self) -> None:
        """Release the memory. It is free once all ranks on the machine have done so."""
        self._images = None

    def __exit__(self, *error: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._images is None:
            return "ImageCache(closed)"
        size = "x".join(map(str, self.img_size))
        gb = self._images.nbytes / 1e9
        return f"ImageCache({len(self)} images of {size}, {gb:.2f} GB on {self._images.device})"
