"""A data set for re-identification: a split to train on, queries, and a gallery to find them in."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .reader import NO_TRACKLET, ReidImage, ReidReader

_logger = logging.getLogger(__name__)

DISTRACTOR_PID = 0  # Market-1501's: always a wrong answer


class Counts(NamedTuple):
    """How large a split is. None: not known, or not published."""

    images: int | None
    ids: int | None
    cameras: int | None = None
    tracklets: int | None = None

    @classmethod
    def of(cls, reader: ReidReader, has_cameras: bool = True) -> "Counts":
        """Those of a reader."""
        return cls(
            images=len(reader),
            ids=len(np.unique(reader.pids)),
            cameras=len(np.unique(reader.camids)) if has_cameras else None,
            tracklets=len(np.unique(reader.tracklets)) if reader.has_tracklets else None,
        )

    def agrees(self, published: "Counts") -> bool:
        """Whether these are the published counts, as far as there are some."""
        return all(theirs in (None, ours) for ours, theirs in zip(self, published, strict=True))

    def __str__(self) -> str:
        return ", ".join(f"{n} {name}" for name, n in self._asdict().items() if n is not None)


@dataclass(frozen=True)
class ReidSplits:
    """A data set: one split to train on, and queries to be looked for in a gallery.

    A split may be empty: some data sets are there to be tested on only.

    Attributes:
        name: Of the data set, with the options that are not its defaults, paths apart:
            ``viper:split=3``.
        root: Folder that was read, which holds the images.
        train: Its labels are 0 … len(classes) - 1.
        query: Its labels are pids.
        gallery: Its labels are pids.
        published: The counts of each split as its authors give them, as far as they do.
        has_cameras: Whether the camera of each image is known. Where it is not, each image has a
            camera id of its own, or all queries one and the gallery another where no image is in
            both: so only the query image itself is left out of a ranking.
        single_gallery_shot: Whether the protocol of the data set is a gallery with one random image
            of each person, drawn many times.
        same_numbering: Whether a pid means the same person in ``train`` and in the test splits.
    """

    name: str
    root: Path
    train: ReidReader
    query: ReidReader
    gallery: ReidReader
    published: Mapping[str, Counts] | None = None
    has_cameras: bool = True
    single_gallery_shot: bool = False
    same_numbering: bool = True

    @classmethod
    def from_images(
        cls,
        name: str,
        root: Path,
        *,
        train: Sequence[ReidImage] = (),
        query: Sequence[ReidImage] = (),
        gallery: Sequence[ReidImage] = (),
        opener: Callable[[str], BinaryIO] | None = None,
        **attributes: Any,
    ) -> "ReidSplits":
        """Make the readers. Label i is the i-th smallest pid of ``train``.

        Sorted, so that a checkpoint's classifier means the same people whatever the order in
        which a file system lists them. ``opener`` is `ReidReader`'s, ``attributes`` are this
        class's.
        """
        pids = sorted({image.pid for image in train})
        label_of = {pid: label for label, pid in enumerate(pids)}
        return cls(
            name=name,
            root=root,
            train=ReidReader(root, train, label_of, opener),
            query=ReidReader(root, query, opener=opener),
            gallery=ReidReader(root, gallery, opener=opener),
            **attributes,
        )

    @property
    def readers(self) -> dict[str, ReidReader]:
        """The three splits by name."""
        return {"train": self.train, "query": self.query, "gallery": self.gallery}

    @property
    def classes(self) -> list[int]:
        """The pid of each label of ``train``."""
        label_of = self.train.label_of or {}
        return sorted(label_of, key=lambda pid: label_of[pid])

    @property
    def counts(self) -> dict[str, Counts]:
        """How large each split is."""
        return {name: Counts.of(reader, self.has_cameras) for name, reader in self.readers.items()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all images with their ids: two runs with the same one used the same data.

        Of the sorted lines "split path pid camid", and where there are some "tracklet" and "left
        top right bottom" of the box. The pixels do not count.
        """
        return _fingerprint(self.readers)

    @property
    def test_fingerprint(self) -> str:
        """`fingerprint` of queries and gallery alone: it does not change with who is trained on."""
        return _fingerprint({"query": self.query, "gallery": self.gallery})

    def describe(self) -> dict[str, Any]:
        """Name, fingerprints, and per split the numbers of images, ids and cameras.

        Plain types only, ready for JSON or YAML.
        """
        counts = {
            split: {name: n for name, n in count._asdict().items() if n is not None}
            for split, count in self.counts.items()
        }
        return {
            "name": self.name,
            **counts,
            "fingerprint": self.fingerprint,
            "test_fingerprint": self.test_fingerprint,
        }

    def warn_unexpected(self) -> None:
        """Warn of counts that are not the published ones, and of people in train and test."""
        counts = self.counts if self.published else {}
        for split, published in (self.published or {}).items():
            if not counts[split].agrees(published):
                _logger.warning(
                    "%s of %s has %s; %s was published with %s. "
                    "Scores will not compare with published ones.",
                    *(split, self.root, counts[split], self.name, published),
                )
        # Only a warning: in users' own data that is at times what they want to measure.
        if shared := self.shared_pids():
            _logger.warning(
                "%s: %d of %d train ids are in query or gallery too (such as %s). If they are the "
                "same people, the scores will be too good.",
                *(self.root, len(shared), len(self.classes), ", ".join(map(str, shared[:5]))),
            )

    def shared_pids(self) -> list[int]:
        """The people who are trained and tested on, sorted, without the distractor."""
        if not self.same_numbering:
            return []
        test = {*self.query.pids.tolist(), *self.gallery.pids.tolist()}
        return sorted((set(self.train.pids.tolist()) & test) - {DISTRACTOR_PID})


def _fingerprint(readers: Mapping[str, ReidReader]) -> str:
    lines = sorted(
        fingerprint_line(split, image)
        for split, reader in readers.items()
        for image in reader.images
    )
    # surrogateescape: the name of a file is not always valid UTF-8.
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def fingerprint_line(split: str, image: ReidImage) -> str:
    """The line of an image in `ReidSplits.fingerprint`."""
    fields: list[object] = [split, image.path, image.pid, image.camid]
    if image.tracklet != NO_TRACKLET:
        fields.append(image.tracklet)
    if image.box is not None:
        fields.extend(image.box)
    return " ".join(map(str, fields)) + "\n"
