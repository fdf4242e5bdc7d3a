"""Lists of images, each with a person and a camera."""

import builtins
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data import ImageDataset
from timm.data.readers.reader import Reader

from .image import UnreadableImageError, decode

NO_TRACKLET = -1


class ReidImage(NamedTuple):
    """One image of a person."""

    path: str  # relative to the reader's root, with forward slashes
    pid: int  # person, as the data set numbers them
    camid: int  # camera, as the data set numbers them
    tracklet: int = NO_TRACKLET  # images of one tracklet are tested as one, by their mean feature
    # The part of the upright image to read: left, top, right, bottom in pixels.
    box: tuple[int, int, int, int] | None = None


class ReidReader(Reader):
    """A list of images as timm's data sets read it.

    ``reader[i]`` is an open file and the tensor ``[label, camid]`` (2,) int64. The label is
    ``label_of[pid]`` for training and the pid itself for testing. In a test split of tracklets the
    tensor is ``[pid, camid, tracklet]`` (3,). Read images through `ReidDataset`, which crops them
    to their boxes. Paths are relative to ``root``; ``opener`` opens those that are not files, and
    loader processes must be able to pickle it.
    """

    def __init__(
        self,
        root: str | Path,
        images: Iterable[ReidImage],
        label_of: Mapping[int, int] | None = None,
        opener: Callable[[str], BinaryIO] | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.label_of = dict(label_of) if label_of is not None else None
        self.opener = opener
        self._set_images(images)

    def _set_images(self, images: Iterable[ReidImage]) -> None:
        self.images = list(images)
        ids = np.array([image[1:4] for image in self.images], dtype=np.int64)
        self.pids, self.camids, self.tracklets = ids.reshape(-1, 3).T

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64: the label of each image, without opening a file."""
        if self.label_of is None:
            return self.pids
        return np.array([self.label_of[image.pid] for image in self.images], dtype=np.int64)

    @property
    def targets(self) -> np.ndarray:
        """(n, 2) int64: label and camera of each image, as in training batches."""
        return np.stack([self.labels, self.camids], axis=1)

    @property
    def has_tracklets(self) -> bool:
        """Whether images belong together as tracklets."""
        return bool((self.tracklets != NO_TRACKLET).any())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[BinaryIO, torch.Tensor]:
        image = self.images[index]
        target = [image.pid if self.label_of is None else self.label_of[image.pid], image.camid]
        if self.label_of is None and image.tracklet != NO_TRACKLET:
            target.append(image.tracklet)
        return self.open(index), torch.tensor(target, dtype=torch.int64)

    def open(self, index: int) -> BinaryIO:
        """Open the file of an image for reading."""
        path = self.images[index].path
        return self.opener(path) if self.opener else builtins.open(self.root / path, "rb")

    def without(self, indices: Iterable[int]) -> "ReidReader":
        """Copy the reader without the images at these indices. Labels stay as they are."""
        dropped = set(indices)
        reader = copy(self)
        reader._set_images(image for i, image in enumerate(self.images) if i not in dropped)
        return reader

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        path = Path(self.images[index].path)
        if basename:
            return path.name
        return str(self.root / path) if absolute else path.as_posix()


class ReidDataset(ImageDataset):
    """timm's `ImageDataset`, but images are decoded by `rga_timm.data.image.decode`.

    An image that cannot be read is an UnreadableImageError, where timm goes on with the next image,
    which may show another person or camera. Boxes are in pixels of the upright image.
    """

    def __init__(self, reader: ReidReader, transform: Any = None) -> None:
        super().__init__(root=str(reader.root), reader=reader, transform=transform)

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        box = self.reader.images[index].box
        try:
            file, target = self.reader[index]
            with file:
                pixels = decode(file)
            if box is not None:
                pixels = _crop(pixels, box)
        except Exception as error:
            name = self.reader.filename(index, absolute=True)
            raise UnreadableImageError.of(name, error) from error
        return pixels if self.transform is None else self.transform(pixels), target


def _crop(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Cut out what of a box is within the image: beyond it, Pillow would pad with black."""
    left, top, right, bottom = box
    inside = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
    if inside[0] < inside[2] and inside[1] < inside[3]:
        return image.crop(inside)
    size = f"{image.width}x{image.height} (width x height)"
    raise ValueError(f"the box {box} (left, top, right, bottom) is outside the {size} image")
