"""From images with names of people and cameras, as users have them, to numbers and splits.

What the readers of users' own data have in common: people and cameras have names of any text, a
split may be given or not, and cameras may be known or not.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .identity_split import IdentitySplit
from .reader import NO_TRACKLET, ReidImage
from .splits import ReidSplits

_logger = logging.getLogger(__name__)

# What a split may be called, and which of a `ReidSplits` it fills.
_BOTH = ("query", "gallery")
SPLITS = {
    "train": ("train",),
    "query": ("query",),
    "gallery": ("gallery",),
    "test": _BOTH,
    "val": _BOTH,
    "valid": _BOTH,
    "validation": _BOTH,
}
_VALIDATION = ("val", "valid", "validation")

Box = tuple[int, int, int, int]
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")  # 18 digits: they must fit 64 bits


class NamedImage(NamedTuple):
    """One image of somebody, with names instead of numbers."""

    place: str  # where it is listed, for errors
    path: str
    identity: str
    camera: str | None = None
    split: str | None = None  # one of SPLITS
    tracklet: str | None = None
    box: Box | None = None


def splits_from_names(
    name: str,
    root: Path,
    images: Sequence[NamedImage],
    by_identity: IdentitySplit,
    *,
    opener: Callable[[str], BinaryIO] | None = None,
    **attributes: Any,
) -> ReidSplits:
    """Split, and number people, cameras and tracklets as `number_names` does.

    An image of the split ``test`` is a query and a gallery image: it is looked for among all the
    others, or with cameras among those of other cameras. Validation images are test images; where
    there are test images besides, they are left out. Where no cameras are known, each image, or
    tracklet, is a camera of its own, the same in query and gallery.

    Args:
        name: Of the data set.
        root: That the paths are relative to.
        images: All of them with a split or none.
        by_identity: How to split where no split is given.
        opener: As `ReidReader` has it.
        attributes: Those of `ReidSplits`.

    Raises:
        ValueError: Only some images have a camera, or only some of a split a tracklet; a tracklet
            shows two people or cameras; there are queries without a gallery, or the other way
            round; no query has a match; the split is given, and so are options to make one.
    """
    _all_or_none("camera", images, lambda image: image.camera is not None)
    has_cameras = any(image.camera is not None for image in images)
    images = _with_splits(name, images, by_identity)
    members: dict[str, list[NamedImage]] = {"train": [], "query": [], "gallery": []}
    for image in images:
        for split in SPLITS[image.split or "train"]:
            members[split].append(image)
    for of_split in members.values():
        _check_tracklets(of_split)
    pids = number_names("identities", (image.identity for image in images))
    tracklets = number_names("tracklets", (image.tracklet for image in images if image.tracklet))
    camids = _camera_ids(members, has_cameras)
    numbered = {
        split: [
            ReidImage(
                path=image.path,
                pid=pids[image.identity],
                camid=camid,
                tracklet=tracklets[image.tracklet] if image.tracklet else NO_TRACKLET,
                box=image.box,
            )
            for image, camid in zip(of_split, camids[split], strict=True)
        ]
        for split, of_split in members.items()
    }
    _check_protocol(name, numbered["query"], numbered["gallery"], has_cameras)
    return ReidSplits.from_images(
        name, root, **numbered, opener=opener, has_cameras=has_cameras, **attributes
    )


def choose_columns(
    table: object,
    columns: Sequence[str],
    wanted: Mapping[str, str | None],
    optional: Collection[str],
    option_of: Mapping[str, str],
) -> dict[str, str]:
    """From what a column says to its name, for those ``columns`` that ``wanted`` names.

    A column need not be there if it is ``optional`` and has its usual name. ``option_of`` is for
    the error: the option that names a column, where it is called otherwise.

    Raises:
        ValueError: A column that has to be there is not.
    """
    found = {}
    for role, name in wanted.items():
        if name is not None and name in columns:
            found[role] = name
        elif name is not None and (role not in optional or name != role):
            raise ValueError(
                f"{table} has no column {name!r}. It has {', '.join(columns)}: the option "
                f"{option_of.get(role, role)} says which of them it is"
            )
    return found


def image_of_row(
    place: str, path: str, cells: Mapping[str, str], columns: Mapping[str, str], box: Box | None
) -> NamedImage:
    """The image that a row of a table is about; ``cells`` and ``columns`` as `choose_columns`.

    Raises:
        ValueError: It has no identity, or an unknown split.
    """
    if not cells["identity"]:
        raise ValueError(f"{place} has no identity (column {columns['identity']!r})")
    split = cells["split"].lower() if "split" in cells else None
    if split is not None and split not in SPLITS:
        raise ValueError(
            f"{place} has the split {cells['split']!r} (column {columns['split']!r}), which is "
            f"none of {', '.join(SPLITS)}"
        )
    camera, tracklet = cells.get("camera") or None, cells.get("tracklet") or None
    return NamedImage(place, path, cells["identity"], camera, split, tracklet, box)


def number_names(what: str, names: Iterable[str]) -> dict[str, int]:
    """A number for each name: the name itself if all are whole numbers, else its rank from 1.

    Ranks are in the order of Unicode. They start at 1 because pid 0 is Market-1501's distractor.
    ``what`` they are names of is for the error.

    Raises:
        ValueError: All are whole numbers, and two of them the same one: ``7`` and ``007``.
    """
    ordered = sorted(set(names))
    if not all(_WHOLE_NUMBER.fullmatch(name) for name in ordered):
        return {name: rank for rank, name in enumerate(ordered, start=1)}
    first: dict[int, str] = {}
    for name in ordered:
        if (other := first.setdefault(int(name), name)) != name:
            raise ValueError(
                f"the {what} {other!r} and {name!r} are different names of the same number: give "
                "both the same name if they are the same, else another name to one"
            )
    return {name: int(name) for name in ordered}


def _all_or_none(
    what: str, images: Sequence[NamedImage], has: Callable[[NamedImage], bool]
) -> None:
    lacking = [image for image in images if not has(image)]
    if lacking and len(lacking) < len(images):
        having = next(image for image in images if has(image))
        raise ValueError(
            f"{lacking[0].place} has no {what}, as {len(lacking)} of {len(images)} images, and "
            f"{having.place} has one: give one to all or to none"
        )


def _with_splits(
    name: str, images: Sequence[NamedImage], by_identity: IdentitySplit
) -> Sequence[NamedImage]:
    """The images, all with a split."""
    given = Counter(image.split for image in images)
    if None in given:
        sides = by_identity.apply(image.identity for image in images)
        return [image._replace(split=sides[image.identity]) for image in images]
    if not by_identity.is_default:
        raise ValueError(
            f"{name} is split already ({', '.join(map(str, given))}): test_share, seed and "
            "split_file would change nothing"
        )
    validation = [split for split in given if split in _VALIDATION]
    if not validation or not {"test", *_BOTH} & set(given):
        return images
    _logger.warning(
        "%s has test images and validation images: the %d images of %s are left out",
        *(name, sum(given[split] for split in validation), " and ".join(map(str, validation))),
    )
    return [image for image in images if image.split not in _VALIDATION]


def _check_tracklets(images: Sequence[NamedImage]) -> None:
    _all_or_none("tracklet", images, lambda image: bool(image.tracklet))
    first: dict[str, NamedImage] = {}
    for image in images:
        if not image.tracklet:
            return
        other = first.setdefault(image.tracklet, image)
        if (other.identity, other.camera) != (image.identity, image.camera):
            what = "people" if other.identity != image.identity else "cameras"
            raise ValueError(
                f"the tracklet {image.tracklet!r} is of two {what}: see {other.place} and "
                f"{image.place}. Within a split each tracklet needs a name of its own"
            )


def _camera_ids(
    members: Mapping[str, Sequence[NamedImage]], has_cameras: bool
) -> dict[str, list[int]]:
    """The camera id of each image of each split."""
    if has_cameras:
        names = {split: [image.camera or "" for image in of] for split, of in members.items()}
        number = number_names("cameras", (name for of in names.values() for name in of))
        return {split: [number[name] for name in of] for split, of in names.items()}
    units = {split: _units(of_split) for split, of_split in members.items()}
    everything = sorted({unit for of_split in units.values() for unit in of_split})
    rank = {unit: i for i, unit in enumerate(everything, start=1)}
    return {split: [rank[unit] for unit in of_split] for split, of_split in units.items()}


def _units(images: Sequence[NamedImage]) -> list[tuple[str, Box | tuple[()]]]:
    """What is looked for as one: path and box of each image, or of its tracklet's first one."""
    first: dict[str, tuple[str, Box | tuple[()]]] = {}
    units = []
    for image in images:
        unit = (image.path, image.box or ())
        units.append(first.setdefault(image.tracklet, unit) if image.tracklet else unit)
    return units


def _check_protocol(
    name: str, query: Sequence[ReidImage], gallery: Sequence[ReidImage], has_cameras: bool
) -> None:
    """Queries need a gallery, and at least one of them a match. Others are counted."""
    if bool(query) != bool(gallery):
        there, lacking = ("queries", "gallery") if query else ("a gallery", "queries")
        raise ValueError(
            f"{name} has {there} but no {lacking}: give both, or neither, or a split called test, "
            "whose images are looked for among one another"
        )
    of_person = Counter(image.pid for image in gallery)
    of_camera = Counter((image.pid, image.camid) for image in gallery)
    unmatched = sum(of_person[q.pid] == of_camera[q.pid, q.camid] for q in query)
    if query and unmatched == len(query):
        raise ValueError(
            f"{name} cannot be tested on: no query's person is in the gallery "
            + ("under another camera" if has_cameras else "in another image")
        )
    if unmatched:
        _logger.info(
            "%s: %d of %d queries have no match in the gallery, and will not be counted",
            *(name, unmatched, len(query)),
        )
