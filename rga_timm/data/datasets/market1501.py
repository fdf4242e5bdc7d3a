"""Market-1501 (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015).

12,936 images of 751 people to train on, 3,368 queries, 15,913 gallery images, 6 cameras.

Its layout and its naming are the field's common denominator: many data sets are passed around in
them, so `read_market1501` reads any of those.
"""

import logging
import os
from dataclasses import replace
from pathlib import Path

from ..layout import Layout, file_names, find_layout
from ..naming import Naming
from ..reader import ReidImage, ReidReader
from ..registry import register_dataset
from ..splits import DISTRACTOR_PID, Counts, ReidSplits

_logger = logging.getLogger(__name__)

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
LAYOUT = Layout("the archive's own", FOLDERS)
JUNK_PID = -1  # neither right nor wrong as an answer: such images are dropped

# Person, camera, sequence, frame, number of the box in the frame.
# Some of Market-1501's own files end in .jpg.jpg.
_NAMING = Naming(
    "Market-1501",
    r"(?P<pid>-1|\d+)_c(?P<camid>\d+)s\d+_\d+_\d+(\.jpe?g|\.png)+",
    "0002_c1s1_000451_03.jpg (PERSON_cCAMERAsSEQUENCE_FRAME_NUMBER.jpg)",
    junk_pid=JUNK_PID,
)
MULTI_QUERY_FOLDER = "gt_bbox"

# distractors_500k.zip unpacks to images/; torchreid and fast-reid look for that in the root only.
DISTRACTOR_FOLDERS = (
    "images",
    "distractors_500k/images",
    "distractors_500k",
    "../distractors_500k/images",
    "../distractors_500k",
)
# Left out of a ranking is who has the query's person and camera. No query has the distractors'
# person, nor this camera: Market-1501 counts its cameras from 1.
DISTRACTOR_CAMID = 0

# Junk left out. The gallery's ids include the distractor.
_PUBLISHED = {
    "train": Counts(12936, 751, 6),
    "query": Counts(3368, 750, 6),
    "gallery": Counts(15913, 751, 6),
}
_GALLERY_WITH_DISTRACTORS = Counts(15913 + 500_000, 751)
# The authors give no number of images, but one multi-query for each of the 3,368 queries.
_PUBLISHED_MULTI = {**_PUBLISHED, "query": Counts(None, 750, 6, 3368)}


@register_dataset("market1501", title="Market-1501", layouts=[LAYOUT], published=_PUBLISHED)
def market1501(
    root: Path | None, *, distractors: bool = False, multi_query: bool = False
) -> ReidSplits:
    """Market-1501, or anything in its layout; a warning is logged where it is not all there.

    Args:
        root: The folder with ``bounding_box_train``, ``query`` and ``bounding_box_test``, or a
            folder around it.
        distractors: Whether the 500,000 distractors that the authors distribute beside it
            (``distractors_500k.zip``) are in the gallery too. They are looked for in folders
            ``images`` and ``distractors_500k`` in the root and beside it. Every image of that
            folder is one, whatever its name: pid 0, camid 0, never left out of a ranking.
        multi_query: Whether a query is all images of its person under its camera, as in the
            authors' multi-query test, instead of one of them. They are in the archive's folder
            ``gt_bbox``. Each query is a tracklet: it is tested by the mean of its images' features.
    """
    splits = read_market1501(root, "market1501")
    if multi_query:
        images = _all_images_of(splits.query, splits.root)
        splits = replace(splits, query=ReidReader(splits.root, images), published=_PUBLISHED_MULTI)
    if not distractors:
        return splits
    gallery = ReidReader(splits.root, [*splits.gallery.images, *_read_distractors(splits.root)])
    published = {**(splits.published or _PUBLISHED), "gallery": _GALLERY_WITH_DISTRACTORS}
    return replace(splits, gallery=gallery, published=published)


def read_market1501(root: Path | None, name: str) -> ReidSplits:
    """Read a data set in Market-1501's layout, called ``name``.

    Junk (pid -1) is dropped; distractors (pid 0) stay.

    Raises:
        FileNotFoundError: The layout is another one, or one of its folders is empty.
        ValueError: A file is not named as in Market-1501.
    """
    root, _ = find_layout(name, root, [LAYOUT])
    train, query, gallery = (_NAMING.read_folder(root, folder) for folder in FOLDERS)
    return ReidSplits.from_images(name, root, train=train, query=query, gallery=gallery)


def _all_images_of(query: ReidReader, root: Path) -> list[ReidImage]:
    """The images in gt_bbox of each query's person and camera, as tracklets."""
    if not (root / MULTI_QUERY_FOLDER).is_dir():
        raise FileNotFoundError(
            f"there is no folder {root / MULTI_QUERY_FOLDER}, which has the images for "
            "multi_query=true: it is in Market-1501's own archive"
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
            f"{root / MULTI_QUERY_FOLDER} is not complete: it has no image for {len(missing)} of "
            f"{len(pairs)} queries, such as person {pid} under camera {camid}"
        )
    return images


def _read_distractors(root: Path) -> list[ReidImage]:
    """The images of the first folder of distractors that has some."""
    for folder in DISTRACTOR_FOLDERS:
        found = file_names(root / folder) if (root / folder).is_dir() else []
        if names := [name for name in found if name.lower().endswith((".jpg", ".jpeg", ".png"))]:
            _logger.info("%d distractors from %s", len(names), root / folder)
            return [ReidImage(f"{folder}/{n}", DISTRACTOR_PID, DISTRACTOR_CAMID) for n in names]
    # Not Path.resolve() nor parents: "..", seen from a link, is beside what it links to.
    looked = ", ".join(os.path.realpath(root / folder) for folder in DISTRACTOR_FOLDERS)
    raise FileNotFoundError(
        f"there are no distractors for {root}: none of these folders is there with images in it: "
        f"{looked}. Unpack the authors' distractors_500k.zip in {root}, so that its images are in "
        f"{root / DISTRACTOR_FOLDERS[0]}, or read market1501 without distractors=true"
    )
