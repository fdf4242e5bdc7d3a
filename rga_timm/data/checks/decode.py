"""Decode every image of a split, and leave out what cannot be decoded."""

import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from PIL import UnidentifiedImageError
from PIL.Image import DecompressionBombError
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..image import reason_of
from ..reader import ReidDataset, ReidReader
from ..splits import ReidSplits

_logger = logging.getLogger(__name__)

_CHUNK = 32  # images that a process sends at a time: each alone costs as much as decoding

# What a failed download leaves instead of images, by its first bytes.
_NOT_IMAGES = {
    b"version https://git-lfs": "a Git LFS pointer in the place of the file: run git lfs pull",
    b"<!doctype html": "a web page, not an image: the download failed",
    b"<html": "a web page, not an image: the download failed",
}


class ImageFacts(NamedTuple):
    """What decoding an image tells."""

    position: int  # in its reader
    reason: str | None = None  # why it cannot be decoded; then the rest is not known
    size: tuple[int, int] = (0, 0)  # width, height in pixels, of the box if there is one
    digest: str = ""  # SHA-256 of size and RGB pixels; empty if not asked for


def inspect_images(
    reader: ReidReader,
    *,
    workers: int = 4,
    hashes: bool = True,
    progress: bool = True,
    name: str = "images",
) -> Iterator[ImageFacts]:
    """Decode every image as `ReidDataset` does: what fails here would end a training run.

    A JPEG that is damaged in its middle decodes to wrong pixels without an error, so it is not
    found. ``hashes`` adds a hash of the pixels, which is the same for an image with other metadata
    or in another lossless format. ``name`` is what the bar calls the images; ``workers=0`` decodes
    in this process. Yields facts in the reader's order.
    """
    loader = DataLoader(
        _Inspection(reader, hashes),
        batch_size=_CHUNK,
        num_workers=min(workers, -(-len(reader) // _CHUNK)),
        collate_fn=list,
        generator=torch.Generator(),  # or it takes a number from torch's global ones
    )
    hidden = None if progress else True
    with tqdm(total=len(reader), desc=name, unit=" images", disable=hidden) as bar:
        for chunk in loader:
            yield from chunk
            bar.update(len(chunk))


def find_bad_images(
    reader: ReidReader, workers: int = 4, progress: bool = True, name: str = "images"
) -> dict[int, str]:
    """Map the index of each image that cannot be decoded to the reason; see `inspect_images`."""
    facts = inspect_images(reader, workers=workers, hashes=False, progress=progress, name=name)
    return {fact.position: fact.reason for fact in facts if fact.reason is not None}


def skip_bad_images(
    splits: ReidSplits, workers: int = 4, progress: bool = True
) -> tuple[ReidSplits, list[tuple[str, str, str]]]:
    """Drop the images that cannot be decoded from all splits of a data set.

    Labels stay as they are, even if an identity loses its last training image, which logs a
    warning: a classifier's outputs keep the meaning that they have in other checkpoints. Such a
    class does no harm: no batch has it, and the classifier learns never to answer with it.

    Returns the data set, the same if all images are fine, and the (split, path, reason) of each
    image that was left out. A split without any image left is a ValueError.
    """
    kept: dict[str, ReidReader] = {}
    skipped: list[tuple[str, str, str]] = []
    for split, reader in splits.readers.items():
        bad = find_bad_images(reader, workers, progress, name=split)
        if bad and len(bad) == len(reader):
            first = reader.filename(0, absolute=True)
            text = f"none of the {len(reader)} images of {split} in {splits.root} can be read"
            raise ValueError(f"{text}; the first is {first}: {bad[0]}")
        skipped += [(split, reader.images[index].path, reason) for index, reason in bad.items()]
        kept[split] = reader.without(bad)
    if not skipped:
        return splits, []
    if lost := sorted(set(splits.classes) - set(kept["train"].pids.tolist())):
        _logger.warning(
            "%s: %d train ids have no readable image (such as %s). They keep their labels.",
            *(splits.root, len(lost), ", ".join(map(str, lost[:5]))),
        )
    return replace(splits, **kept), skipped


class _Inspection(Dataset):
    """The facts of each image of a reader."""

    def __init__(self, reader: ReidReader, hashes: bool) -> None:
        self.reader = reader
        self.hashes = hashes

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> ImageFacts:
        data = b""
        try:
            # Read once, for the reason and the pixels: an opener may read from a network.
            with self.reader.open(index) as file:
                data = file.read()
            images = [self.reader.images[index]]
            one = ReidReader(self.reader.root, images, opener=lambda _: io.BytesIO(data))
            pixels = ReidDataset(one)[0][0]
        # Whatever an opener or a decoder raises is about this image; look at the others too.
        except Exception as error:
            return ImageFacts(index, _reason(error, data))
        if not self.hashes:
            return ImageFacts(index, None, pixels.size)
        # The size too: 2x8 and 8x2 black pixels are not the same image.
        digest = hashlib.sha256(repr(pixels.size).encode() + pixels.tobytes()).hexdigest()
        return ImageFacts(index, None, pixels.size, digest)


def _reason(error: Exception, data: bytes) -> str:
    """Say why an image cannot be decoded, in a few words without the path."""
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    if isinstance(cause, FileNotFoundError):
        return "there is no such file"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(cause, DecompressionBombError):
        return f"too many pixels: {cause}"
    if not isinstance(cause, OSError | SyntaxError | ValueError):
        return reason_of(cause)
    if not data:
        return "the file is empty (0 bytes)"
    start = data[:64].lstrip().lower()
    for beginning, reason in _NOT_IMAGES.items():
        if start.startswith(beginning):
            return reason
    unknown = isinstance(cause, UnidentifiedImageError)
    return "not an image in a format that Pillow knows" if unknown else reason_of(cause)
