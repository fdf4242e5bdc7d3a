"""What the data sets with one image of a person and camera have in common: pairs of images."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..layout import Layout, find_layout
from ..naming import Naming
from ..partition import choose_partition
from ..reader import ReidImage
from ..splits import Counts, ReidSplits

CAMERA_A, CAMERA_B = 0, 1


def half_counts(people: int) -> dict[str, Counts]:
    """The counts of a data set with so many people in each half, and an image in each camera."""
    test = Counts(people, people, 1)
    return {"train": Counts(2 * people, people, 2), "query": test, "gallery": test}


def read_halves(
    name: str,
    root: Path | None,
    layout: Layout,
    naming: Naming,
    *,
    split: int,
    partitions: str | None,
    prefix: str = "",
) -> ReidSplits:
    """Read a data set of people who all are in both cameras: half to train on, half to test on.

    Queries are from camera a, the gallery is from camera b.

    Args:
        name: Of the data set, as registered.
        root: The folder with ``cam_a`` and ``cam_b``, or one around it.
        layout: With ``cam_a`` and ``cam_b`` right below.
        naming: Of the images.
        split: Number of the partition.
        partitions: File that it is read from; None for a random one.
        prefix: What the names of images start with, where there are other files beside them.
    """
    root, _ = find_layout(name, root, [layout])
    a, b = (
        one_of_each(naming.read_folder(root, folder, camid, prefix=prefix), root / folder)
        for folder, camid in (("cam_a", CAMERA_A), ("cam_b", CAMERA_B))
    )
    require(b, a, root / "cam_a", naming.title)
    require(a, b, root / "cam_b", naming.title)
    chosen = choose_partition(root, names_of(a, b), size=len(a) // 2, split=split, file=partitions)
    return ReidSplits.from_images(
        name,
        root,
        train=[camera[pid] for camera in (a, b) for pid in sorted(chosen.train)],
        query=[a[pid] for pid in sorted(chosen.test)],
        gallery=[b[pid] for pid in sorted(chosen.test)],
    )


def one_of_each(images: Iterable[ReidImage], folder: Path) -> dict[int, ReidImage]:
    """The image of each person; a ValueError if somebody has two in this folder."""
    image_of: dict[int, ReidImage] = {}
    for image in images:
        if (other := image_of.setdefault(image.pid, image)) is not image:
            raise ValueError(
                f"{folder} holds two images of person {image.pid}, {other.path} and {image.path}; "
                "there should be one"
            )
    return image_of


def require(
    pids: Iterable[int], image_of: Mapping[int, ReidImage], folder: Path, title: str
) -> None:
    """Raise a ValueError unless all of these people have an image."""
    if missing := sorted(set(pids) - image_of.keys()):
        raise ValueError(
            f"{folder} lacks {len(missing)} people, such as {missing[0]}, whom {title} has in both "
            "cameras. Is the data set complete?"
        )


def names_of(*cameras: Mapping[int, ReidImage]) -> dict[str, int]:
    """From the name of each image to its pid, as partition files need it."""
    return {Path(image.path).name: pid for camera in cameras for pid, image in camera.items()}
