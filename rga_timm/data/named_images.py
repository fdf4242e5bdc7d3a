"""Number the named people and cameras of users' own data, and split the images.

Shared by the readers of users' own data: people and cameras have any text as their names, and a
split and cameras may be known or not.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .identity_split import IdentitySplit
from .matches import JUNK_PID
from .reader import NO_TRACKLET, ReidImage
from .splits import ReidSplits

_logger = logging.getLogger(__name__)

# What a split may be called, and which of a `ReidSplits` it fills.
_VALIDATION = ("val", "valid", "validation")
SPLITS: dict[str, tuple[str, ...]] = {split: (split,) for split in ("train", "query", "gallery")}
SPLITS |= dict.fromkeys(("test", *_VALIDATION), ("query", "gallery"))

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

    An image of the split ``test`` is a query and a gallery image. Validation images are test
    images; they are left out if there are test images too. The identity -1 is junk, as in
    Market-1501: its images are left out, if there are others. If no cameras are known, each image,
    or tracklet, has a camera of its own, the same in query and gallery.

    Paths are relative to ``root``. An image without a split makes ``by_identity`` split all images.
    ``opener`` is `ReidReader`'s, ``attributes`` are those of `ReidSplits`.

    Raises:
        ValueError: Only some images have a camera, or only some of a split a tracklet; a tracklet
            shows two people or cameras; queries or a gallery are missing; the split is given, and
            so are options to make one.
    """
    images = _without_junk(name, images)
    _all_or_none("camera", images, lambda image: image.camera is not None)
    has_cameras = any(image.camera is not None for image in images)
    images = _with_splits(name, images, by_identity)
    members = {
        split: [image for image in images if split in SPLITS[image.split or "train"]]
        for split in ("train", "query", "gallery")
    }
    for of_split in members.values():
        _check_tracklets(of_split)
    pids = number_names("identities", (image.identity for image in images))
    tracklets = number_names("tracklets", (image.tracklet for image in images if image.tracklet))
    camids = _camera_ids(members, has_cameras)
    numbered = {
        split: [
            ReidImage(
                image.path,
                pids[image.identity],
                camid,
                tracklet=tracklets[image.tracklet] if image.tracklet else NO_TRACKLET,
                box=image.box,
            )
            for image, camid in zip(of_split, camids[split], strict=True)
        ]
        for split, of_split in members.items()
    }
    if bool(numbered["query"]) != bool(numbered["gallery"]):
        found = ("queries", "gallery") if numbered["query"] else ("a gallery", "queries")
        text = "{} has {} but no {}: give both, or neither, or a split called test for both"
        raise ValueError(text.format(name, *found))
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
    """Choose from ``columns`` the name of each role's column, as ``wanted`` names it.

    A role's column may be missing if the role is in ``optional`` and the column has its usual
    name, the role's. ``option_of`` names the option of a role for the error, a ValueError.
    """
    found = {}
    for role, name in wanted.items():
        if name is not None and name in columns:
            found[role] = name
        elif name is not None and (role not in optional or name != role):
            text = f"{table} has no column {name!r}. It has {', '.join(columns)}: the option"
            raise ValueError(f"{text} {option_of.get(role, role)} says which of them it is")
    return found


def image_of_row(
    place: str, path: str, cells: Mapping[str, str], columns: Mapping[str, str], box: Box | None
) -> NamedImage:
    """Make the image of a table's row; ``cells`` and ``columns`` as from `choose_columns`."""
    if not cells["identity"]:
        raise ValueError(f"{place} has no identity (column {columns['identity']!r})")
    split = cells["split"].lower() if "split" in cells else None
    if split is not None and split not in SPLITS:
        text = f"{place} has the split {cells['split']!r} (column {columns['split']!r})"
        raise ValueError(f"{text}, which is none of {', '.join(SPLITS)}")
    camera, tracklet = cells.get("camera") or None, cells.get("tracklet") or None
    return NamedImage(place, path, cells["identity"], camera, split, tracklet, box)


def number_names(what: str, names: Iterable[str]) -> dict[str, int]:
    """Number each name: the name itself if all are whole numbers, else its Unicode rank from 1.

    Ranks start at 1 because pid 0 is Market-1501's distractor. Two names of the same number, such
    as ``7`` and ``007``, are a ValueError, which calls the names ``what``.
    """
    ordered = sorted(set(names))
    if not all(_WHOLE_NUMBER.fullmatch(name) for name in ordered):
        return {name: rank for rank, name in enumerate(ordered, start=1)}
    first: dict[int, str] = {}
    for name in ordered:
        if (other := first.setdefault(int(name), name)) != name:
            text = f"the {what} {other!r} and {name!r} are different names of the same number"
            raise ValueError(f"{text}: use one name if they are the same, else rename one")
    return {name: int(name) for name in ordered}


def _without_junk(name: str, images: Sequence[NamedImage]) -> Sequence[NamedImage]:
    kept = [image for image in images if image.identity != str(JUNK_PID)]
    if not kept:  # a list without identities, to distil from
        return images
    if junk := len(images) - len(kept):
        text = "%s: %d images of the identity %d are junk, as in Market-1501, and are left out"
        _logger.info(text, name, junk, JUNK_PID)
    return kept


def _all_or_none(
    what: str, images: Sequence[NamedImage], has: Callable[[NamedImage], bool]
) -> None:
    lacking = [image for image in images if not has(image)]
    having = next((image for image in images if has(image)), None)
    if lacking and having:
        text = f"{lacking[0].place} has no {what}, as {len(lacking)} of {len(images)} images"
        raise ValueError(f"{text}, and {having.place} has one: give one to all or to none")


def _with_splits(
    name: str, images: Sequence[NamedImage], by_identity: IdentitySplit
) -> Sequence[NamedImage]:
    given = Counter(image.split for image in images)
    if None in given:
        sides = by_identity.apply(image.identity for image in images)
        return [image._replace(split=sides[image.identity]) for image in images]
    if not by_identity.is_default:
        text = f"{name} is split already ({', '.join(map(str, given))})"
        raise ValueError(f"{text}: test_share, seed and split_file would change nothing")
    validation = [split for split in given if split in _VALIDATION]
    if not validation or not {"test", "query", "gallery"} & set(given):
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
            text = f"the tracklet {image.tracklet!r} is of two {what}: see {other.place} and"
            raise ValueError(f"{text} {image.place}. Give each tracklet of a split its own name")


def _camera_ids(
    members: Mapping[str, Sequence[NamedImage]], has_cameras: bool
) -> dict[str, list[int]]:
    """Return the camera id of each image of each split."""
    units: dict[str, list[Any]] = {}
    for split, of_split in members.items():
        # Without cameras: path and box of each image, or of the first image of its tracklet.
        first: dict[Any, Any] = {}
        units[split] = [
            (image.camera or "")
            if has_cameras
            else first.setdefault(image.tracklet or i, (image.path, image.box or ()))
            for i, image in enumerate(of_split)
        ]
    known = {unit for of_split in units.values() for unit in of_split}
    if has_cameras:
        number = number_names("cameras", known)
    else:
        number = {unit: rank for rank, unit in enumerate(sorted(known), start=1)}
    return {split: [number[unit] for unit in of_split] for split, of_split in units.items()}
