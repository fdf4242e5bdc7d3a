"""The readers of re-identification: lists of images, each with a person and a camera."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data import ImageDataset
from timm.data.readers.reader import Reader

_logger = logging.getLogger(__name__)


class ReidImage(NamedTuple):
    """One image of a person."""

    path: str  # relative to the reader's root, with forward slashes
    pid: int  # person, as the data set numbers them
    camid: int  # camera, as the data set numbers them


class ReidReader(Reader):
    """A list of images as timm's data sets read it.

    ``reader[i]`` is an open file and the tensor ``[label, camid]`` (2,) int64, where the label is
    ``label_of[pid]`` for training and the pid itself for testing. It is a tensor because timm's
    ``fast_collate`` takes no tuples. Read images through `ReidDataset`: timm's own `ImageDataset`
    takes readers too, but puts the next image in the place of one that it cannot decode.

    Args:
        root: Folder that the paths of the images start from.
        images: The images, in the order in which they are to be read.
        label_of: From pid to the classifier's label.
    """

    def __init__(
        self,
        root: str | Path,
        images: Iterable[ReidImage],
        label_of: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.images = list(images)
        self.label_of = dict(label_of) if label_of is not None else None
        self.pids = np.array([image.pid for image in self.images], dtype=np.int64)
        self.camids = np.array([image.camid for image in self.images], dtype=np.int64)

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64: what ``reader[i]`` gives as the label, without opening a file."""
        if self.label_of is None:
            return self.pids
        return np.array([self.label_of[image.pid] for image in self.images], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[BinaryIO, torch.Tensor]:
        image = self.images[index]
        label = image.pid if self.label_of is None else self.label_of[image.pid]
        target = torch.tensor([label, image.camid], dtype=torch.int64)
        return open(self.root / image.path, "rb"), target

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        path = Path(self.images[index].path)
        if basename:
            return path.name
        return str(self.root / path) if absolute else path.as_posix()


class ReidDataset(ImageDataset):
    """timm's `ImageDataset`, except that an image which cannot be read is an error.

    timm goes on with the next image. That is the image of another person or camera: a wrong
    positive in training, and in evaluation a ranking that is about something else.

    Args:
        reader: What to read.
        transform: From a PIL RGB image to whatever a batch is made of.
    """

    def __init__(self, reader: ReidReader, transform: Any = None) -> None:
        super().__init__(root=str(reader.root), reader=reader, transform=transform)

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        try:
            file, target = self.reader[index]
            with file, Image.open(file) as image:
                pixels = image.convert("RGB")  # this is what decodes
        # What Pillow raises on a broken file depends on the format and on where it is broken.
        except (OSError, SyntaxError, ValueError) as error:
            name = self.reader.filename(index, absolute=True)
            raise RuntimeError(f"cannot read the image {name}: {error}") from error
        return pixels if self.transform is None else self.transform(pixels), target


@dataclass(frozen=True)
class ReidSplits:
    """A data set: one split to train on, and queries to be looked for in a gallery.

    Attributes:
        name: Of the data set.
        root: Folder that was read, which holds the images.
        train: Its labels are 0 … len(classes) - 1.
        query: Its labels are pids.
        gallery: Its labels are pids.
    """

    name: str
    root: Path
    train: ReidReader
    query: ReidReader
    gallery: ReidReader

    @classmethod
    def from_images(
        cls,
        name: str,
        root: Path,
        *,
        train: Sequence[ReidImage],
        query: Sequence[ReidImage],
        gallery: Sequence[ReidImage],
    ) -> "ReidSplits":
        """Make the readers. Label i is the i-th smallest pid of ``train``.

        Sorted, so that a checkpoint's classifier means the same people whatever the order in
        which a file system lists them.
        """
        pids = sorted({image.pid for image in train})
        label_of = {pid: label for label, pid in enumerate(pids)}
        return cls(
            name=name,
            root=root,
            train=ReidReader(root, train, label_of),
            query=ReidReader(root, query),
            gallery=ReidReader(root, gallery),
        )

    @property
    def classes(self) -> list[int]:
        """The pid of each label of ``train``."""
        return [int(pid) for pid in np.unique(self.train.pids)]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of who is where in which image: two runs with the same one used the same data.

        Of the sorted lines "split path pid camid"; the pixels do not count.
        """
        lines = sorted(
            f"{split} {image.path} {image.pid} {image.camid}\n"
            for split, reader in self._readers().items()
            for image in reader.images
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Name, fingerprint, and per split the numbers of images, ids and cameras.

        Plain types only, ready for JSON or YAML.
        """
        counts = {
            split: {
                "images": len(reader),
                "ids": len(np.unique(reader.pids)),
                "cameras": len(np.unique(reader.camids)),
            }
            for split, reader in self._readers().items()
        }
        return {"name": self.name, **counts, "fingerprint": self.fingerprint}

    def _readers(self) -> dict[str, ReidReader]:
        return {"train": self.train, "query": self.query, "gallery": self.gallery}
