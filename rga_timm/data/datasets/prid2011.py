"""PRID 2011, single-shot: one image of each person under each camera.

Hirzer et al., "Person Re-Identification by Descriptive and Discriminative Classification", SCIA
2011. 385 people in camera a, 749 in camera b. People 1 to 200 are in both. Numbers above 200 mean
different people in camera a and camera b.
"""

from pathlib import Path
from typing import Literal

from ..layout import Layout, find_layout
from ..naming import Naming
from ..partition import PARTITIONS
from ..registry import register_dataset
from ..splits import Counts, ReidSplits
from .single_shot import CAMERA_A, CAMERA_B, one_of_each, require, split_in_halves

TITLE = "PRID 2011"
SHARED = range(1, 201)  # the people in both cameras
_FOLDERS = ("single_shot/cam_a", "single_shot/cam_b")

_NAMING = Naming(
    TITLE, r"person_(?P<pid>\d+)\.(png|bmp|jpe?g)", "person_0001.png (person_PERSON.png)"
)
LAYOUT = Layout("the archive's own", _FOLDERS)

_PUBLISHED = {
    "train": Counts(200, 100, 2),
    "query": Counts(100, 100, 1),
    "gallery": Counts(649, 649, 1),
}
_PUBLISHED_WHOLE = {"query": Counts(200, 200, 1), "gallery": Counts(749, 749, 1)}


@register_dataset(
    "prid2011", title=TITLE, layouts=[LAYOUT], published=_PUBLISHED, partitions=PARTITIONS
)
def prid2011(
    root: Path | None,
    *,
    split: int = 0,
    partitions: str | None = None,
    protocol: Literal["half", "whole"] = "half",
) -> ReidSplits:
    """PRID 2011, single-shot: queries from camera a, the gallery from camera b.

    Args:
        root: The data set's folder, or one around it.
        split: Number of the partition, 0 to 9, with ``protocol=half``.
        partitions: JSON file with ten partitions of the people 1 to 200, such as torchreid's
            ``splits_single_shot.json``, or a list of ``{"train": [pids], "test": [pids]}``. A
            relative path starts from the folder of the data set or the one above. The default is
            random partitions that never change.
        protocol: ``half``, as in torchreid and most papers: 100 random people of the 200 to train
            on, the other 100 as queries, and a gallery of these and the 549 people of camera b
            alone. ``whole``, as on the data set's page: no training, 200 queries, a gallery of 749.
    """
    root, _ = find_layout("prid2011", root, [LAYOUT])
    a, b = (
        one_of_each(_NAMING.read_folder(root, folder, camid), root / folder)
        for folder, camid in zip(_FOLDERS, (CAMERA_A, CAMERA_B), strict=True)
    )
    for folder, camera in zip(_FOLDERS, (a, b), strict=True):
        require(SHARED, camera, root / folder, TITLE)
    if protocol == "whole":
        if split != 0 or partitions is not None:
            raise ValueError(f"with protocol=whole {TITLE} has no partitions to choose from")
        return ReidSplits.from_images(
            "prid2011",
            root,
            query=[a[pid] for pid in SHARED],
            gallery=[b[pid] for pid in sorted(b)],
            published=_PUBLISHED_WHOLE,
        )
    return split_in_halves("prid2011", root, a, b, SHARED, split, partitions)
