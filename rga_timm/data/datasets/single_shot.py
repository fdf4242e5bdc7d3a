"""What the data sets with one image of a person and camera have in common: pairs of images."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..layout import Layout, file_names, find_layout, listing, match_names
from ..partition import choose_partition
from ..reader import ReidImage
from ..splits import ReidSplits

CAMERA_A, CAMERA_B = 0, 1


def read_halves(
    name: str,
    root: Path | None,
    layouts: Sequence[Layout],
    *,
    pattern: re.Pattern[str],
    example: str,
    title: str,
    split: int,
    partitions: str | None,
    prefix: str = "",
) -> ReidSplits:
    """Read a data set of people who all are in both cameras: half to train on, half to test on.

    Camera a asks, camera b answers.

    Args:
        name: Of the data set, as registered.
        root: The folder with ``cam_a`` and ``cam_b``, or one around it.
        layouts: Those of the data set, with ``cam_a`` and ``cam_b`` right below.
        pattern: Of the images' names, with the group ``pid``.
        example: A name that matches.
        title: Of the data set.
        split: Number of the partition.
        partitions: File that it is read from; none for a random one.
        prefix: What the names of images start with, where there are other files beside them.

    Raises:
        FileNotFoundError: The data set or the partition file is not there, or has no images.
        ValueError: A name is of another form, somebody is not in both cameras, or twice in one, or
            the partition file does not fit.
    """
    root, _ = find_layout(name, root, layouts)
    cameras = [
        pick(
            read_folder(root, folder, pattern, example, title, camid=camid, prefix=prefix),
            root / folder,
        )
        for folder, camid in (("cam_a", CAMERA_A), ("cam_b", CAMERA_B))
    ]
    a, b = cameras
    require(b, a, root / "cam_a", title)
    require(a, b, root / "cam_b", title)
    chosen = choose_partition(root, names_of(a, b), size=len(a) // 2, split=split, file=partitions)
    return ReidSplits.from_images(
        name,
        root,
        train=[camera[pid] for camera in cameras for pid in sorted(chosen.train)],
        query=[a[pid] for pid in sorted(chosen.test)],
        gallery=[b[pid] for pid in sorted(chosen.test)],
    )


def read_folder(
    root: Path,
    folder: str,
    pattern: re.Pattern[str],
    example: str,
    title: str,
    *,
    camid: int | None = None,
    prefix: str = "",
) -> list[ReidImage]:
    """The images of one folder in the order of their names.

    Args:
        root: That the paths of the images start from.
        folder: Below ``root``.
        pattern: Of the names, with the group ``pid``, and ``camid`` if that is not given.
        example: A name that matches.
        title: Of the data set.
        camid: Camera of all images.
        prefix: Files whose names start otherwise are passed over.

    Raises:
        FileNotFoundError: There are no images.
        ValueError: A name does not match.
    """
    names = [name for name in file_names(root / folder) if name.startswith(prefix)]
    images = [
        ReidImage(
            f"{folder}/{name}", int(match["pid"]), int(match["camid"]) if camid is None else camid
        )
        for name, match in match_names(root / folder, names, pattern, example, title)
    ]
    if not images:
        raise FileNotFoundError(
            f"{root / folder} holds no images of {title}. Expected files such as {example}, "
            f"found {listing(root / folder)}"
        )
    return images


def pick(images: Iterable[ReidImage], folder: Path) -> dict[int, ReidImage]:
    """The image of each person.

    Raises:
        ValueError: Somebody has two in this folder.
    """
    image_of: dict[int, ReidImage] = {}
    for image in images:
        if image.pid in image_of:
            raise ValueError(
                f"{folder} holds two images of person {image.pid}, {image_of[image.pid].path} and "
                f"{image.path}; there should be one"
            )
        image_of[image.pid] = image
    return image_of


def require(
    pids: Iterable[int], image_of: Mapping[int, ReidImage], folder: Path, title: str
) -> None:
    """Check that all of these people have an image.

    Raises:
        ValueError: Somebody has none.
    """
    if missing := sorted(set(pids) - image_of.keys()):
        raise ValueError(
            f"{folder} lacks {len(missing)} people, such as {missing[0]}, whom {title} has in both "
            "cameras. Is the data set complete?"
        )


def names_of(*cameras: Mapping[int, ReidImage]) -> dict[str, int]:
    """From the name of each image to its pid, as partition files need it."""
    return {
        image.path.rsplit("/", 1)[-1]: pid for camera in cameras for pid, image in camera.items()
    }
