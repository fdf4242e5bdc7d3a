"""Data sets with one image of each person under each camera: what their readers share."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ..layout import Layout, find_layout
from ..naming import Naming
from ..partition import choose_partition
from ..reader import ReidImage
from ..splits import Counts, ReidSplits

CAMERA_A, CAMERA_B = 0, 1


def half_counts(people: int) -> dict[str, Counts]:
    """The counts of a data set with this many people in each half."""
    test = Counts(people, people, 1)
    return {"train": Counts(2 * people, people, 2), "query": test, "gallery": test}


def read_halves(
    name: str,
    root: Path | None,
    layout: Layout,
    naming: Naming,
    split: int,
    partitions: str | None,
    prefix: str = "",
) -> ReidSplits:
    """Read a data set of folders ``cam_a`` and ``cam_b`` with the same people: half are trained on.

    Files whose names do not start with ``prefix`` are ignored.
    """
    root, _ = find_layout(name, root, [layout])
    a, b = (
        one_of_each(naming.read_folder(root, folder, camid, prefix=prefix), root / folder)
        for folder, camid in (("cam_a", CAMERA_A), ("cam_b", CAMERA_B))
    )
    require(b, a, root / "cam_a", naming.title)
    require(a, b, root / "cam_b", naming.title)
    return split_in_halves(name, root, a, b, a.keys(), split, partitions)


def split_in_halves(
    name: str,
    root: Path,
    a: Mapping[int, ReidImage],
    b: Mapping[int, ReidImage],
    shared: Collection[int],
    split: int,
    partitions: str | None,
) -> ReidSplits:
    """Train on half of the shared people; queries are from camera a, the gallery is from camera b.

    The gallery also holds the people of camera b who are not ``shared``.
    """
    pid_of = {Path(camera[pid].path).name: pid for camera in (a, b) for pid in shared}
    size = len(shared) // 2
    chosen = choose_partition(root, pid_of, size=size, split=split, file=partitions)
    return ReidSplits.from_images(
        name,
        root,
        train=[camera[pid] for camera in (a, b) for pid in sorted(chosen.train)],
        query=[a[pid] for pid in sorted(chosen.test)],
        gallery=[b[pid] for pid in sorted(chosen.test | b.keys() - set(shared))],
    )


def one_of_each(images: Iterable[ReidImage], folder: Path) -> dict[int, ReidImage]:
    """The image of each person; a ValueError if somebody has two."""
    image_of: dict[int, ReidImage] = {}
    for image in images:
        if (other := image_of.setdefault(image.pid, image)) is not image:
            both = f"{other.path} and {image.path}"
            raise ValueError(f"{folder} holds two images of person {image.pid}, {both}, not one")
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
