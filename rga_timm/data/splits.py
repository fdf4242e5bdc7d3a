"""A data set for re-identification: a split to train on, queries, and a gallery to find them in."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .matches import MatchCounts
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
        """Count what a reader holds."""
        return cls(
            images=len(reader),
            ids=len(np.unique(reader.pids)),
            cameras=len(np.unique(reader.camids)) if has_cameras else None,
            tracklets=len(np.unique(reader.tracklets)) if reader.has_tracklets else None,
        )

    def agrees(self, published: "Counts") -> bool:
        """Whether these are the published counts, as far as some are published."""
        return all(theirs in (None, ours) for ours, theirs in zip(self, published, strict=True))

    def as_dict(self) -> dict[str, int]:
        """Return the known counts."""
        return {name: count for name, count in self._asdict().items() if count is not None}

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.as_dict().items())


@dataclass(frozen=True)
class ReidSplits:
    """A data set: a split to train on, and queries to look for in a gallery. Splits may be empty.

    If the cameras are not known, each image has a camera id of its own; or all queries have one and
    the gallery another, if no image is in both. So a ranking leaves out only the query image.
    """

    name: str  # with the options that are not its defaults, except paths: viper:split=3
    root: Path  # folder that was read, which holds the images
    train: ReidReader  # with the labels 0 … len(classes) - 1
    query: ReidReader
    gallery: ReidReader
    published: Mapping[str, Counts] | None = None  # the counts that its authors give
    has_cameras: bool = True  # whether the camera of each image is known
    # Whether the protocol is a gallery with one random image of each person, drawn many times.
    single_gallery_shot: bool = False
    same_numbering: bool = True  # whether a pid is the same person in train and in the test splits

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
        """Make the readers, with this class's ``attributes`` and `ReidReader`'s ``opener``."""
        # Label i is the i-th smallest pid, so that it does not depend on the order of files.
        pids = sorted({image.pid for image in train})
        label_of = {pid: label for label, pid in enumerate(pids)}
        to_train = ReidReader(root, train, label_of, opener)
        to_test = (ReidReader(root, images, opener=opener) for images in (query, gallery))
        return cls(name, root, to_train, *to_test, **attributes)

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
    def matches(self) -> MatchCounts:
        """How many queries have a match, and why the others have none; tracklets by image."""
        query, gallery = self.query, self.gallery
        return MatchCounts.of(query.pids, query.camids, gallery.pids, gallery.camids)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the sorted lines of `fingerprint_line`: the images' paths and ids."""
        return _fingerprint(self.readers)

    @property
    def test_fingerprint(self) -> str:
        """`fingerprint` of queries and gallery alone, which does not depend on the train split."""
        return _fingerprint({"query": self.query, "gallery": self.gallery})

    def describe(self) -> dict[str, Any]:
        """Name, counts of each split and fingerprints in plain types, ready for JSON or YAML."""
        return {
            "name": self.name,
            **{split: count.as_dict() for split, count in self.counts.items()},
            "fingerprint": self.fingerprint,
            "test_fingerprint": self.test_fingerprint,
        }

    def warn_unexpected(self) -> None:
        """Warn if counts are not the published ones, or if people are in train and test."""
        counts = self.counts if self.published else {}
        for split, published in (self.published or {}).items():
            if not counts[split].agrees(published):
                text = "%s of %s has %s; %s was published with %s. Its scores do not compare."
                _logger.warning(text, split, self.root, counts[split], self.name, published)
        # Only a warning: in users' own data that is at times what they want to measure.
        if shared := self.shared_pids():
            _logger.warning(
                "%s: %d of %d train ids are in query or gallery too (such as %s). If they are the "
                "same people, the scores will be too good.",
                *(self.root, len(shared), len(self.classes), ", ".join(map(str, shared[:5]))),
            )

    def shared_pids(self) -> list[int]:
        """The people who are in train and in a test split, sorted, without the distractor."""
        if not self.same_numbering:
            return []
        test = {*self.query.pids.tolist(), *self.gallery.pids.tolist()}
        return sorted((set(self.train.pids.tolist()) & test) - {DISTRACTOR_PID})


def _fingerprint(readers: Mapping[str, ReidReader]) -> str:
    lines = [fingerprint_line(split, image) for split in readers for image in readers[split].images]
    # surrogateescape: the name of a file is not always valid UTF-8.
    return hashlib.sha256("".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def fingerprint_line(split: str, image: ReidImage) -> str:
    """Return an image's line ``split path pid camid [tracklet] [left top right bottom]``."""
    tracklet = () if image.tracklet == NO_TRACKLET else (image.tracklet,)
    fields = (split, image.path, image.pid, image.camid, *tracklet, *(image.box or ()))
    return " ".join(map(str, fields)) + "\n"
