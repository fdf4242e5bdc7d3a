"""PRID 2011 with a single shot of each person and camera.

Hirzer et al., "Person Re-Identification by Descriptive and Discriminative Classification", SCIA
2011. 385 people in camera a, 749 in camera b, one image each. Persons 1 to 200 are in both. Above
200 a number means one person in camera a and another one in camera b.
"""

from pathlib import Path
from typing import Literal

from ..layout import Layout, find_layout
from ..naming import Naming
from ..partition import PARTITIONS, choose_partition
from ..registry import register_dataset
from ..splits import Counts, ReidSplits
from .single_shot import CAMERA_A, CAMERA_B, names_of, one_of_each, require

TITLE = "PRID 2011"
SHARED = range(1, 201)  # who is in both cameras
TRAIN_SIZE = 100
_FOLDERS = ("single_shot/cam_a", "single_shot/cam_b")

_NAMING = Naming(
    TITLE, r"person_(?P<pid>\d+)\.(png|bmp|jpe?g)", "person_0001.png (person_PERSON.png)"
)
# torchreid has a folder prid2011 around it.
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
    """PRID 2011 with one image of a person and camera; queries from camera a, gallery from b.

    Args:
        root: The folder with ``single_shot``, or a folder around it.
        split: Number of the partition, 0 to 9, with ``protocol="half"``.
        partitions: JSON file with ten partitions of the people 1 to 200, such as torchreid's
            ``splits_single_shot.json``, or a list of ``{"train": [pids], "test": [pids]}``; a
            relative path starts from the folder of the data set or the one above. Without it they
            are drawn, always the same ones, even if such a file is there.
        protocol: ``"half"`` is that of papers which learn, and torchreid's: 100 random ones of the
            200 people to train on, the other 100 as queries, and a gallery of these and the 549
            people whom only camera b saw. ``"whole"`` is the one on the data set's page, without
            training: 200 queries, a gallery of 749.
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
    names = names_of(*({pid: camera[pid] for pid in SHARED} for camera in (a, b)))
    chosen = choose_partition(root, names, size=TRAIN_SIZE, split=split, file=partitions)
    distractors = b.keys() - set(SHARED)
    return ReidSplits.from_images(
        "prid2011",
        root,
        train=[camera[pid] for camera in (a, b) for pid in sorted(chosen.train)],
        query=[a[pid] for pid in sorted(chosen.test)],
        gallery=[b[pid] for pid in sorted(chosen.test | distractors)],
    )
