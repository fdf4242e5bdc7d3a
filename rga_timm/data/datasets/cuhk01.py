"""CUHK01 (Li et al., "Human Reidentification with Transferred Metric Learning", ACCV 2012).

971 people in 3,884 images: two of each person from camera A and two from camera B.
"""

from pathlib import Path
from typing import Literal

from ..layout import Layout, find_layout
from ..naming import Naming
from ..partition import PARTITIONS, random_partition
from ..registry import register_dataset
from ..splits import Counts, ReidSplits

NUM_IDS = 971

# Images 1 and 2 are from camera A, 3 and 4 from camera B.
_NAMING = Naming(
    "CUHK01",
    r"(?P<pid>\d{4})00(?P<number>[1-4])\.(png|jpe?g|bmp)",
    "0001003.png (PERSON, 4 digits, IMAGE, 001 to 004)",
)
LAYOUT = Layout("the archive's own", ("campus",))


def _counts(test_ids: int) -> dict[str, Counts]:
    train_ids = NUM_IDS - test_ids
    test = Counts(2 * test_ids, test_ids, 1)
    return {"train": Counts(4 * train_ids, train_ids, 2), "query": test, "gallery": test}


@register_dataset(
    "cuhk01", title="CUHK01", layouts=[LAYOUT], published=_counts(486), partitions=PARTITIONS
)
def cuhk01(root: Path | None, *, split: int = 0, test_ids: Literal[486, 100] = 486) -> ReidSplits:
    """CUHK01: queries are from camera A (1), the gallery is from camera B (2).

    There are no published partitions: papers take the mean over 10 random ones. The partitions here
    are random too, with the partition's number as the seed, and never change.

    All images of a test person are used (multi-shot). Papers that say single-shot keep one gallery
    image of each person.

    Args:
        root: The data set's folder, or one around it.
        split: Number of the partition, 0 to 9.
        test_ids: Number of people to test on: 486 of the 971, as in most papers, or 100.
    """
    root, _ = find_layout("cuhk01", root, [LAYOUT])
    images = _NAMING.read_folder(root, "campus", lambda match: (int(match["number"]) + 1) // 2)
    for image in images:
        if not 1 <= image.pid <= NUM_IDS:
            people = f"CUHK01's people are 1 to {NUM_IDS}"
            raise ValueError(f"{root / image.path}: {people}, not {image.pid}")
    # Of all 971, so that missing images do not change the partition.
    tested = random_partition(range(1, NUM_IDS + 1), test_ids, split)
    train = [image for image in images if image.pid not in tested]
    query, gallery = (
        [image for image in images if image.pid in tested and image.camid == camid]
        for camid in (1, 2)
    )
    if not (train and query and gallery):
        raise FileNotFoundError(
            f"{root / 'campus'} holds {len(images)} images, too few for partition {split}: "
            f"{len(train)} to train, {len(query)} queries, {len(gallery)} in the gallery"
        )
    return ReidSplits.from_images(
        "cuhk01", root, train=train, query=query, gallery=gallery, published=_counts(test_ids)
    )
