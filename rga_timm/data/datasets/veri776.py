"""VeRi-776: vehicles instead of people.

Liu et al., "A Deep Learning-Based Approach to Progressive Vehicle Re-identification for Urban
Surveillance", ECCV 2016. 37,778 images of 576 vehicles to train on, 1,678 queries and 11,579
gallery images of 200 others, 20 cameras. The queries are among the gallery images; as nothing of a
query's own vehicle and camera counts, none finds itself.
"""

import re
from pathlib import Path

from ..layout import Layout, file_names, find_layout, listing, match_names
from ..reader import ReidImage
from ..registry import register_dataset
from ..splits import Counts, ReidSplits

FOLDERS = ("image_train", "image_query", "image_test")

# 0001_c001_00016450_0.jpg: vehicle, camera, frame, number of the box in the frame.
_NAME = re.compile(r"(?P<pid>\d+)_c(?P<camid>\d+)_\d+_\d+\.jpe?g", re.ASCII | re.IGNORECASE)
_EXAMPLE = "0001_c001_00016450_0.jpg (VEHICLE_cCAMERA_FRAME_NUMBER.jpg)"

LAYOUT = Layout("the archive's own", FOLDERS)

_PUBLISHED = {
    "train": Counts(37778, 576, 20),
    "query": Counts(1678, 200),
    "gallery": Counts(11579, 200),
}


@register_dataset("veri776", title="VeRi-776", layouts=[LAYOUT], published=_PUBLISHED)
def veri776(root: Path | None) -> ReidSplits:
    """VeRi-776. Read are the folders of images, not the lists that lie beside them.

    The usual rule applies, that nothing of the query's vehicle and camera counts: it is what the
    archive's ``gt_index.txt`` and ``jk_index.txt`` spell out.

    Args:
        root: The folder with ``image_train``, ``image_query`` and ``image_test``, or a folder
            around it.

    Raises:
        FileNotFoundError: The layout is another one, or one of its folders is empty.
        ValueError: A file is not named as in VeRi-776.
    """
    root, _ = find_layout("veri776", root, [LAYOUT])
    train, query, gallery = (_read_folder(root, folder) for folder in FOLDERS)
    return ReidSplits.from_images("veri776", root, train=train, query=query, gallery=gallery)


def _read_folder(root: Path, folder: str) -> list[ReidImage]:
    """The images of one folder in the order of their names."""
    names = file_names(root / folder)
    images = [
        ReidImage(f"{folder}/{name}", int(match["pid"]), int(match["camid"]))
        for name, match in match_names(root / folder, names, _NAME, _EXAMPLE, "VeRi-776")
    ]
    if not images:
        raise FileNotFoundError(
            f"{root / folder} holds no images. Expected files such as {_EXAMPLE}, "
            f"found {listing(root / folder)}"
        )
    return images
