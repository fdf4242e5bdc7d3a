"""MSMT17: 4,101 people, 15 cameras.

Wei et al., "Person Transfer GAN to Bridge Domain Gap for Person Re-Identification", CVPR 2018.
126,441 images. Train and val show the same 1,041 people. 11,659 queries and 82,161 gallery images
show 3,060 others, also numbered from 0.

There are two versions with the same images and lists: V1, as first published, and V2, with masked
faces. Scores on one cannot be compared with scores on the other.
"""

import logging
import re
from pathlib import Path
from typing import Literal

from ..layout import Layout, ListedFiles, find_layout, read_lines
from ..reader import ReidImage
from ..registry import register_dataset
from ..splits import Counts, ReidSplits

_logger = logging.getLogger(__name__)

_LISTS = ("list_train.txt", "list_query.txt", "list_gallery.txt")
LAYOUTS = {
    "v1": Layout("V1's", ("train", "test", *_LISTS)),
    "v2": Layout("V2's", ("mask_train_v2", "mask_test_v2", *_LISTS)),
}
_DESCRIPTION = {"v1": "V1, as first published", "v2": "V2, with masked faces"}

_LINE = re.compile(r"(?P<path>.*\S)\s+(?P<pid>\S+)")
_EXAMPLE = "0000/0000_000_01_0303morning_0008_0.jpg 0 (PATH PERSON)"
_CAMERA = re.compile(r"[^_]+_[^_]+_(?P<camid>\d\d)_.+", re.ASCII)

_TEST = {"query": Counts(11659, 3060, 15), "gallery": Counts(82161, 3060, 15)}
_PUBLISHED = {"train": Counts(30248, 1041, 15), **_TEST}
_PUBLISHED_WITH_VAL = {"train": Counts(32621, 1041, 15), **_TEST}


@register_dataset("msmt17", title="MSMT17", layouts=tuple(LAYOUTS.values()), published=_PUBLISHED)
def msmt17(
    root: Path | None, *, val: bool = False, version: Literal["v1", "v2"] | None = None
) -> ReidSplits:
    """MSMT17. The returned name says which version was read: ``msmt17:version=v1``.

    Args:
        root: The data set's folder, or one around it.
        val: Whether to train on the images of ``list_val.txt`` too: 32,621 instead of 30,248
            images of the same people. By default torchreid and fast-reid do not, but others such as
            CLIP-ReID do, so report it with a score.
        version: ``v1`` (folders ``train``, ``test``) or ``v2`` (``mask_train_v2``,
            ``mask_test_v2``). By default, the one that is found.
    """
    layouts = [LAYOUTS[version]] if version else list(LAYOUTS.values())
    root, layout = find_layout("msmt17", root, layouts)
    found = [name for name, one in LAYOUTS.items() if not one.missing_in(root)]
    if version is None and len(found) > 1:
        raise ValueError(
            f"{root} holds both versions of MSMT17, with and without faces: choose one with "
            "msmt17:version=v1 or msmt17:version=v2"
        )
    version = version or ("v1" if layout is LAYOUTS["v1"] else "v2")
    _logger.info("%s: MSMT17 %s", root, _DESCRIPTION[version])
    train_folder, test_folder = layout.paths[:2]
    present = ListedFiles(root)
    train = _read_list(root, "list_train.txt", train_folder, present)
    if val:
        train += _read_list(root, "list_val.txt", train_folder, present)
    return ReidSplits.from_images(
        f"msmt17:version={version}",
        root,
        train=train,
        query=_read_list(root, "list_query.txt", test_folder, present),
        gallery=_read_list(root, "list_gallery.txt", test_folder, present),
        published=_PUBLISHED_WITH_VAL if val else None,
        same_numbering=False,
    )


def _read_list(root: Path, file: str, folder: str, present: ListedFiles) -> list[ReidImage]:
    """The images that a list names, in its order; its paths start from ``folder``."""
    placed = [(place, _read_line(place, line, folder)) for place, line in read_lines(root / file)]
    if missing := [(place, image.path) for place, image in placed if image.path not in present]:
        place, path = missing[0]
        raise FileNotFoundError(
            f"{place}: there is no file {root / path}. {len(missing)} of the {len(placed)} files "
            f"that {file} names are missing: was the archive unpacked completely?"
        )
    return [image for _, image in placed]


def _read_line(place: str, line: str, folder: str) -> ReidImage:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"{place}: {line!r} is not a path and a person, as in {_EXAMPLE}")
    path, pid = match["path"], match["pid"]
    if not (pid.isascii() and pid.removeprefix("-").isdigit()):
        raise ValueError(f"{place}: the person {pid!r} is not a whole number, as in {_EXAMPLE}")
    if pid.startswith("-"):
        raise ValueError(f"{place}: the person {pid} is negative: they are numbered from 0")
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{place}: {path} leads out of {folder}, which it should start from")
    camera = _CAMERA.fullmatch(path.rpartition("/")[2])
    if camera is None:
        raise ValueError(
            f"{place}: {path} does not say which camera took it (two digits after the second "
            f"underscore), as in {_EXAMPLE}"
        )
    return ReidImage(f"{folder}/{path}", int(pid), int(camera["camid"]))
