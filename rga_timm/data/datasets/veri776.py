"""VeRi-776: vehicles instead of people.

Liu et al., "A Deep Learning-Based Approach to Progressive Vehicle Re-identification for Urban
Surveillance", ECCV 2016. 37,778 images of 576 vehicles to train on, 1,678 queries and 11,579
gallery images of 200 others, 20 cameras. The queries are also gallery images, but no query finds
itself: gallery images of the query's vehicle and camera are left out.
"""

from pathlib import Path

from ..layout import Layout, find_layout
from ..naming import Naming
from ..registry import register_dataset
from ..splits import Counts, ReidSplits

FOLDERS = ("image_train", "image_query", "image_test")
LAYOUT = Layout("the archive's own", FOLDERS)

# Vehicle, camera, frame, number of the box in the frame.
_NAMING = Naming(
    "VeRi-776",
    r"(?P<pid>\d+)_c(?P<camid>\d+)_\d+_\d+\.jpe?g",
    "0001_c001_00016450_0.jpg (VEHICLE_cCAMERA_FRAME_NUMBER.jpg)",
)
_PUBLISHED = {
    "train": Counts(37778, 576, 20),
    "query": Counts(1678, 200),
    "gallery": Counts(11579, 200),
}


@register_dataset("veri776", title="VeRi-776", layouts=[LAYOUT], published=_PUBLISHED)
def veri776(root: Path | None) -> ReidSplits:
    """VeRi-776, from its folders of images.

    The lists ``gt_index.txt`` and ``jk_index.txt`` are not read: they say the same as the
    same-camera rule.
    """
    root, _ = find_layout("veri776", root, [LAYOUT])
    train, query, gallery = (_NAMING.read_folder(root, folder) for folder in FOLDERS)
    return ReidSplits.from_images("veri776", root, train=train, query=query, gallery=gallery)
