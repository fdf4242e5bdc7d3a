"""Market-1501 (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015).

12,936 images of 751 people to train on, 3,368 queries, 15,913 gallery images, 6 cameras.

Its layout and its naming are the field's common denominator: many data sets are passed around in
them, so `read_market1501` reads any of those.
"""

import re
from pathlib import Path

from ..layout import Layout, file_names, find_layout, listing, match_names
from ..reader import ReidImage
from ..registry import register_dataset
from ..splits import Counts, ReidSplits

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
JUNK_PID = -1  # neither right nor wrong as an answer: such images are dropped

# 0002_c1s1_000451_03.jpg: person, camera, sequence, frame, number of the box in the frame.
# Some of Market-1501's own files end in .jpg.jpg.
_NAME = re.compile(r"(?P<pid>-1|\d+)_c(?P<camid>\d+)s\d+_\d+_\d+(\.jpe?g|\.png)+", re.IGNORECASE)
_EXAMPLE = "0002_c1s1_000451_03.jpg (PERSON_cCAMERAsSEQUENCE_FRAME_NUMBER.jpg)"

LAYOUT = Layout("the archive's own", FOLDERS)

# Junk left out. The gallery's ids include the distractor.
_PUBLISHED = {
    "train": Counts(12936, 751, 6),
    "query": Counts(3368, 750, 6),
    "gallery": Counts(15913, 751, 6),
}


@register_dataset("market1501", title="Market-1501", layouts=[LAYOUT], published=_PUBLISHED)
def market1501(root: Path | None) -> ReidSplits:
    """Market-1501, or anything in its layout; a warning is logged where it is not all there.

    Args:
        root: The folder with ``bounding_box_train``, ``query`` and ``bounding_box_test``, or a
            folder around it.
    """
    return read_market1501(root, "market1501")


def read_market1501(root: Path | None, name: str) -> ReidSplits:
    """Read a data set in Market-1501's layout.

    Junk (pid -1) is dropped; distractors (pid 0) stay.

    Args:
        root: As for `market1501`.
        name: What to call the data set.

    Raises:
        FileNotFoundError: The layout is another one, or one of its folders is empty.
        ValueError: A file is not named as in Market-1501.
    """
    root, _ = find_layout(name, root, [LAYOUT])
    train, query, gallery = (_read_folder(root, folder) for folder in FOLDERS)
    return ReidSplits.from_images(name, root, train=train, query=query, gallery=gallery)


def _read_folder(root: Path, folder: str) -> list[ReidImage]:
    """The images of one folder in the order of their names, junk left out."""
    names = file_names(root / folder)
    images = [
        ReidImage(f"{folder}/{name}", int(match["pid"]), int(match["camid"]))
        for name, match in match_names(root / folder, names, _NAME, _EXAMPLE, "Market-1501")
    ]
    images = [image for image in images if image.pid != JUNK_PID]
    if not images:
        raise FileNotFoundError(
            f"{root / folder} holds no images of people. Expected files such as {_EXAMPLE}, "
            f"found {listing(root / folder)}"
        )
    return images
