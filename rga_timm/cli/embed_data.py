"""The images of rga-timm embed: of a data set or of a folder."""

from __future__ import annotations

import argparse
import hashlib
import logging
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from rga_timm.data import ReidReader, find_bad_images, read_images
from rga_timm.data.reader import NO_TRACKLET
from rga_timm.data.specs import FORM, dataset_help, leave_out_bad_images, read_partitions
from rga_timm.data.splits import fingerprint_line
from rga_timm.evaluation import StoredEmbeddings, check_testable

_logger = logging.getLogger("embed")

SPLITS = ("query", "gallery", "train")


def add_image_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that choose images."""
    source, add = parser.add_mutually_exclusive_group(required=True), parser.add_argument
    source.add_argument("--images", type=Path, metavar="FOLDER", help="all images below a folder")
    text = dataset_help().replace("one or more", "one")
    source.add_argument("--dataset", metavar=FORM, help=text)
    add("--data-dir", type=Path, metavar="DIR", help="folder of the data set")
    text = "of the data set (default: query gallery, which rga-timm evaluate needs)"
    add("--splits", nargs="+", choices=SPLITS, help=text)
    text = "leave out images that cannot be decoded (default: exit before any work)"
    add("--skip-bad-images", action="store_true", help=text)


@dataclass(frozen=True)
class ImageList:
    """Images in the order in which they are stored."""

    reader: ReidReader  # without tracklets, whose images are stored one by one
    splits: list[str]  # of each image; an empty string for images of a folder
    tracklets: np.ndarray  # (n,) int64 number of each image's tracklet
    about: dict[str, Any]  # for the metadata

    @classmethod
    def of(cls, readers: dict[str, ReidReader], about: dict[str, Any]) -> ImageList:
        """List the images of several splits of one data set, one split after the other.

        A name that is not valid UTF-8, which embeddings cannot hold, is a ValueError.
        """
        first, *_ = readers.values()
        images = [*chain(*(reader.images for reader in readers.values()))]
        for path in (first.root.resolve().as_posix(), *(image.path for image in images)):
            try:
                path.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"rename {path!r}: its name is not valid UTF-8") from error
        splits = [split for split, reader in readers.items() for _ in reader.images]
        lines = (fingerprint_line(*pair) for pair in zip(splits, images, strict=True))
        about = {
            **about,
            "root": first.root.resolve().as_posix(),
            "paths_are_files": first.opener is None,  # not names in an archive or a table
            "splits": [*readers],
            "count": len(images),
            "fingerprint": hashlib.sha256("".join(lines).encode()).hexdigest(),
        }
        single = (image._replace(tracklet=NO_TRACKLET) for image in images)
        reader = ReidReader(first.root, single, opener=first.opener)
        return cls(reader, splits, np.array([i.tracklet for i in images], dtype=np.int64), about)

    def with_features(self, rows: range, features: np.ndarray) -> StoredEmbeddings:
        """Combine the features of some images with their paths and ids."""
        part = slice(rows.start, rows.stop)
        return StoredEmbeddings(
            features,
            paths=[image.path for image in self.reader.images[part]],
            splits=self.splits[part],
            pids=self.reader.pids[part],
            camids=self.reader.camids[part],
            tracklets=self.tracklets[part],
        )

    def find_bad(self, rows: list[int], workers: int, progress: bool) -> list[str]:
        """List the images that cannot be decoded, a line each."""
        images = [self.reader.images[row] for row in rows]
        some = ReidReader(self.reader.root, images, opener=self.reader.opener)
        bad = find_bad_images(some, workers, progress, name="check")
        return [f"{some.filename(i, absolute=True)}: {reason}" for i, reason in bad.items()]


def read_image_list(args: argparse.Namespace) -> ImageList:
    """List the images that the options choose; errors of readers, or a ValueError."""
    return _of_folder(args) if args.images else _of_dataset(args)


def _of_folder(args: argparse.Namespace) -> ImageList:
    reader = read_images(args.images)
    if args.skip_bad_images:
        bad = find_bad_images(reader, args.workers)
        for index, reason in bad.items():
            _logger.warning("left out: %s: %s", reader.images[index].path, reason)
        if len(bad) == len(reader):
            raise ValueError(f"none of the {len(reader)} images in {args.images} can be read")
        reader = reader.without(bad)
    return ImageList.of({"": reader}, {"dataset": None})


def _of_dataset(args: argparse.Namespace) -> ImageList:
    dataset, *others = read_partitions(args.dataset, args.data_dir)
    if others:
        raise ValueError(f"{args.dataset} is several data sets: embed one at a time")
    if args.skip_bad_images:
        dataset, _ = leave_out_bad_images(dataset, args.workers)
    readers = {split: dataset.readers[split] for split in args.splits or SPLITS[:2]}
    if empty := [split for split, reader in readers.items() if not len(reader)]:
        raise ValueError(f"{dataset.name} has no images in {', '.join(empty)}: name other --splits")
    if {"query", "gallery"} <= readers.keys():
        try:
            check_testable([dataset])
        except ValueError as error:
            _logger.warning("The embeddings can be searched, but not evaluated: %s", error)
    about = {
        "dataset": dataset.describe(),
        "cameras": dataset.has_cameras,
        "single_gallery_shot": dataset.single_gallery_shot,
    }
    return ImageList.of(readers, about)
