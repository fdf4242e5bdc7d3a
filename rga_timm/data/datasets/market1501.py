"""Market-1501 (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015).

12,936 images of 751 people to train on, 3,368 queries, 15,913 gallery images, 6 cameras.

Many other data sets are distributed in its layout, and can be read as ``market1501`` too.
"""

import logging
import os
from dataclasses import replace
from pathlib import Path

from ..layout import Layout, file_names, find_layout
from ..matches import JUNK_PID
from ..naming import Naming
from ..reader import ReidImage, ReidReader
from ..registry import register_dataset
from ..splits import DISTRACTOR_PID, Counts, ReidSplits

_logger = logging.getLogger(__name__)

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
LAYOUT = Layout("the archive's own", FOLDERS)

# Some of Market-1501's own files end in .jpg.jpg.
_NAMING = Naming(
    "Market-1501",
    r"(?P<pid>-1|\d+)_c(?P<camid>\d+)s\d+_\d+_\d+(\.jpe?g|\.png)+",
    "0002_c1s1_000451_03.jpg (PERSON_cCAMERAsSEQUENCE_FRAME_NUMBER.jpg)",
    junk_pid=JUNK_PID,
)
MULTI_QUERY_FOLDER = "gt_bbox"

# distractors_500k.zip unpacks to images/.
DISTRACTOR_FOLDERS = (
    "images", "distractors_500k/images", "distractors_500k",
    "../distractors_500k/images", "../distractors_500k",
)  # fmt: skip
DISTRACTOR_CAMID = 0  # no camera of Market-1501's: they are numbered from 1

# Junk left out. The gallery's ids include the distractor.
_PUBLISHED = {
    "train": Counts(12936, 751, 6),
    "query": Counts(3368, 750, 6),
    "gallery": Counts(15913, 751, 6),
}
_GALLERY_WITH_DISTRACTORS = Counts(15913 + 500_000, 751)
# The number of images is not published.
_PUBLISHED_MULTI = {**_PUBLISHED, "query": Counts(None, 750, 6, 3368)}


@register_dataset("market1501", title="Market-1501", layouts=[LAYOUT], published=_PUBLISHED)
def market1501(
    root: Path | None, *, distractors: bool = False, multi_query: bool = False
) -> ReidSplits:
    """Market-1501, or another data set in its layout.

    Args:
        root: The data set's folder, or one around it.
        distractors: Whether the gallery includes the authors' 500,000 distractors
            (``distractors_500k.zip``), from a folder ``images`` or ``distractors_500k`` in the data
            set's folder or beside it. All images there get pid 0 and camid 0.
        multi_query: Whether a query is all images of its person under its camera, as in the
            authors' multi-query test. They are in the archive's folder ``gt_bbox``. Each query is a
            tracklet: it is tested by the mean of its images' features.
    """
    splits = read_market1501(root, "market1501")
    if multi_query:
        images = _all_images_of(splits.query, splits.root)
        splits = replace(splits, query=ReidReader(splits.root, images), published=_PUBLISHED_MULTI)
    if distractors:
        images = [*splits.gallery.images, *_read_distractors(splits.root)]
        published = {**(splits.published or _PUBLISHED), "gallery": _GALLERY_WITH_DISTRACTORS}
        splits = replace(splits, gallery=ReidReader(splits.root, images), published=published)
    return splits


def read_market1501(root: Path | None, name: str) -> ReidSplits:
    """Read a data set in Market-1501's layout, called ``name``; junk (pid -1) is dropped."""
    root, _ = find_layout(name, root, [LAYOUT])
    train, query, gallery = (_NAMING.read_folder(root, folder) for folder in FOLDERS)
    return ReidSplits.from_images(name, root, train=train, query=query, gallery=gallery)


def _all_images_of(query: ReidReader, root: Path) -> list[ReidImage]:
    """The images in gt_bbox of each query's person and camera, as tracklets."""
    if not (root / MULTI_QUERY_FOLDER).is_dir():
        raise FileNotFoundError(
            f"there is no folder {root / MULTI_QUERY_FOLDER}, which multi_query=true needs: it is "
            "in Market-1501's own archive"
        )
    pairs = sorted({(image.pid, image.camid) for image in query.images})
    number = {pair: i for i, pair in enumerate(pairs)}
    images = [
        image._replace(tracklet=number[image.pid, image.camid])
        for image in _NAMING.read_folder(root, MULTI_QUERY_FOLDER)
        if (image.pid, image.camid) in number
    ]
    if missing := sorted(set(number.values()) - {image.tracklet for image in images}):
        pid, camid = pairs[missing[0]]
        raise FileNotFoundError(
            f"{root / MULTI_QUERY_FOLDER} is incomplete: it has no image for {len(missing)} of "
            f"{len(pairs)} queries, such as person {pid} under camera {camid}"
        )
    return images


def _read_distractors(root: Path) -> list[ReidImage]:
    """The images of the first folder of distractors that has any."""
    for folder in DISTRACTOR_FOLDERS:
        found = file_names(root / folder) if (root / folder).is_dir() else []
        if names := [name for name in found if name.lower().endswith((".jpg", ".jpeg", ".png"))]:
            _logger.info("%d distractors from %s", len(names), root / folder)
            return [ReidImage(f"{folder}/{n}", DISTRACTOR_PID, DISTRACTOR_CAMID) for n in names]
    # Beside a link means beside its target.
    looked = ", ".join(os.path.realpath(root / folder) for folder in DISTRACTOR_FOLDERS)
    raise FileNotFoundError(
        f"there are no distractors for {root}: none of these folders has images: {looked}. Unpack "
        f"the authors' distractors_500k.zip in {root}, or leave out distractors=true"
    )
