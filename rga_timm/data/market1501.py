"""Market-1501 (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015).

Its layout and its naming are the field's common denominator: many data sets are passed around in
them, so `read_market1501` reads any of those.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from .reader import ReidImage, ReidSplits
from .registry import register_dataset

_logger = logging.getLogger(__name__)

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
JUNK_PID = -1  # neither right nor wrong as an answer: such images are dropped
DISTRACTOR_PID = 0  # always a wrong answer: such images stay in the gallery

# 0002_c1s1_000451_03.jpg: person, camera, sequence, frame, number of the box in the frame.
# Some of Market-1501's own files end in .jpg.jpg.
_NAME = re.compile(r"(?P<pid>-1|\d+)_c(?P<camid>\d+)s\d+_\d+_\d+(\.jpe?g|\.png)+", re.IGNORECASE)
_NOT_IMAGES = ("thumbs.db", "desktop.ini")
_USUAL_NAMES = ("Market-1501-v15.09.15", "market1501")

_EXPECTED = (
    f"Expected is a folder with {', '.join(FOLDERS)} in it, or the folder right above that one: "
    "give the folder that the data set's archive was unpacked to."
)

# (images, ids) as the paper counts them, junk left out. The gallery's ids include the distractor.
_PUBLISHED = {"train": (12936, 751), "query": (3368, 750), "gallery": (15913, 751)}


@register_dataset("market1501")
def market1501(root: Path | None) -> ReidSplits:
    """Market-1501, or anything in its layout; a warning is logged where it is not all there.

    Args:
        root: The folder with ``bounding_box_train``, ``query`` and ``bounding_box_test``, or the
            folder that holds that folder.
    """
    if root is None:
        raise FileNotFoundError(f"market1501 has no default root: give one. {_EXPECTED}")
    splits = read_market1501(root, "market1501")
    counts = splits.describe()
    for split, published in _PUBLISHED.items():
        found = (counts[split]["images"], counts[split]["ids"])
        if found != published:
            _logger.warning(
                "%s of %s has %d images of %d ids; Market-1501 was published with %d of %d. "
                "Scores will not compare with published ones.",
                *(split, splits.root, *found, *published),
            )
    return splits


def read_market1501(root: Path, name: str) -> ReidSplits:
    """Read a data set in Market-1501's layout.

    Junk (pid -1) is dropped; distractors (pid 0) stay.

    Args:
        root: As for `market1501`.
        name: What to call the data set.

    Raises:
        FileNotFoundError: The layout is another one, or one of its folders is empty.
        ValueError: A file is not named as in Market-1501.
    """
    root = _find_root(root)
    train, query, gallery = (_read_folder(root, folder) for folder in FOLDERS)
    _warn_of_leaks(root, train, [*query, *gallery])
    return ReidSplits.from_images(name, root, train=train, query=query, gallery=gallery)


def _find_root(root: Path) -> Path:
    """The folder that holds the three folders: ``root`` itself or one right below it."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}. {_EXPECTED}")
    if _holds_layout(root):
        return root
    below = sorted(path for path in root.iterdir() if path.is_dir() and _holds_layout(path))
    named = [path for path in below if path.name in _USUAL_NAMES]
    candidates = named or below
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(path.name for path in candidates)
        raise FileNotFoundError(f"{root} holds several data sets ({names}): name one of them")
    raise FileNotFoundError(
        f"{root} is not in Market-1501's layout: it holds {_listing(root)}. {_EXPECTED}"
    )


def _holds_layout(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in FOLDERS)


def _listing(folder: Path, limit: int = 8) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing: the folder is empty"


def _read_folder(root: Path, folder: str) -> list[ReidImage]:
    """The images of one folder in the order of their names, junk left out."""
    names = sorted(path.name for path in (root / folder).iterdir())
    # ._* are what macOS leaves in archives.
    names = [name for name in names if name[0] != "." and name.lower() not in _NOT_IMAGES]
    images = []
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(
                f"{root / folder / name} is not named as in Market-1501: expected "
                "PERSON_cCAMERAsSEQUENCE_FRAME_NUMBER.jpg, such as 0002_c1s1_000451_03.jpg. "
                "Is this another data set?"
            )
        images.append(ReidImage(f"{folder}/{name}", int(match["pid"]), int(match["camid"])))
    images = [image for image in images if image.pid != JUNK_PID]
    if not images:
        raise FileNotFoundError(
            f"{root / folder} holds no images of people. Expected files such as "
            f"0002_c1s1_000451_03.jpg, found {_listing(root / folder)}"
        )
    return images


def _warn_of_leaks(root: Path, train: Sequence[ReidImage], test: Sequence[ReidImage]) -> None:
    """Say so when people of the train split are tested on.

    Only a warning: in a data set of one's own that is at times what one wants to measure, and a
    data set may number its test people from the start again.
    """
    train_pids = {image.pid for image in train}
    shared = (train_pids & {image.pid for image in test}) - {DISTRACTOR_PID}
    if shared:
        _logger.warning(
            "%s: %d of %d train ids are in query or gallery too (such as %s). If they are the "
            "same people, the scores will be too good.",
            *(root, len(shared), len(train_pids), ", ".join(map(str, sorted(shared)[:5]))),
        )
