"""`folder`: users' own images, a folder per person.

    DIR/<person>/<images>
    DIR/<person>/<camera>/<images>          with camera=folder
    DIR/train/<person>/…, DIR/test/<person>/…

The top folders may be ``train``, ``query`` and ``gallery``, or ``train`` and ``test`` (also
``val``, ``valid``, ``validation``). Without them people are split at random, as described in
`rga_timm.data.identity_split`.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..identity_split import DEFAULT_SEED, DEFAULT_SHARE, IdentitySplit
from ..layout import file_names, list_folder, listing, subfolders
from ..named_images import SPLITS, NamedImage, splits_from_names
from ..registry import register_dataset
from ..splits import ReidSplits

_logger = logging.getLogger(__name__)

SPLIT_FILE = "rga_timm_split.csv"
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

# c1, cam3, Camera_2: at the start, or not after a letter or digit.
CAMERA_IN_NAME = r"(?<![a-zA-Z0-9])(?i:c|cam|camera)[-_ ]?([0-9]+)"
_MARKET_NAME = re.compile(r"-?\d+_c\d+")  # names as in Market-1501


@register_dataset("folder", title="a folder per person")
def folder(
    root: Path | None,
    *,
    camera: str = "none",
    test_share: float = DEFAULT_SHARE,
    seed: int = DEFAULT_SEED,
    split_file: str | None = None,
) -> ReidSplits:
    r"""Images in a folder per person.

    If the names of all people are whole numbers, these are the pids; else the pids are 1, 2, … in
    the sorted order of the names. Cameras are numbered in the same way.

    Args:
        root: The folder with the people's folders, or with ``train``, ``test`` and so on.
        camera: How the camera is found. ``none``: it is not known, and each query is compared with
            all other images. ``folder``: the name of the folder below the person's. ``name``: the
            first text like ``_c1`` or ``cam3`` in the file's name. Anything else is a regular
            expression to search for in the path below ``root``, with one group, the camera:
            ``_(\d+)_\w+\.jpg``. An expression with commas must be given as an argument.
        test_share: The share of the people to test on, if there is no split.
        seed: Of the random split, if there is no split.
        split_file: File of the random split; ``root/rga_timm_split.csv`` by default.
    """
    if root is None or not root.is_dir():
        what = "needs a folder" if root is None else f"found no folder {root}"
        raise FileNotFoundError(f"folder {what}. Expected a folder that holds one per person")
    camera_of = _camera_reader(camera)
    ignored = Ignored()
    walked = list(_walk(root, ignored))
    images = [
        NamedImage(str(root / path), path, person, camera_of(path, below), split)
        for split, person, below, path in walked
    ]
    ignored.log(root)
    if not images:
        raise FileNotFoundError(
            f"{root} holds no images in folders of people. Expected DIR/PERSON/IMAGE or "
            f"DIR/train/PERSON/IMAGE, with images that end in {', '.join(IMAGE_EXTENSIONS)}; found "
            f"{listing(root)}"
        )
    if camera == "none":
        _warn_of_unread_cameras(root, images, all(below for _, _, below, _ in walked))
    by_identity = IdentitySplit(root / SPLIT_FILE, split_file, test_share, seed)
    return splits_from_names("folder", root, images, by_identity)


class Ignored:
    """Collects what is not read, for one warning of each kind."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.people: list[str] = []  # without images
        self.links: list[str] = []

    def images_of(self, names: Iterable[str]) -> list[str]:
        """The images among files, in their order; the other files are collected."""
        images: list[str] = []
        for name in names:
            if name.lower().endswith(IMAGE_EXTENSIONS):
                images.append(name)
            elif name != SPLIT_FILE:
                self.files.append(name)
        return images

    def log(self, root: Path) -> None:
        """Log the warnings."""
        for what, names in (
            ("files that are not images", self.files),
            ("folders of people that hold no image", self.people),
            ("links to folders that are read already, or lie above", self.links),
        ):
            if names:
                _logger.warning("%s: ignored %d %s, such as %s", root, len(names), what, names[0])


def _walk(root: Path, ignored: Ignored) -> Iterator[tuple[str | None, str, list[str], str]]:
    """Split, person, folders below the person's, and path of each image."""
    tops = _tops(root)
    loose = {} if root in tops else {root: ignored.images_of(file_names(root))}
    images = {top: images_below(top, ignored) for top in tops}
    loose |= {top: [p.name for p in paths if p.parent == top] for top, paths in images.items()}
    for top, names in loose.items():
        if names:
            raise ValueError(
                f"{len(names)} images, such as {names[0]}, are right in {top} and not in a "
                "person's folder. Move them to PERSON/IMAGE, or list them in a table (data set "
                "'table')"
            )
    for top, split in tops.items():
        people = set()
        for path in images[top]:
            person, *below = path.relative_to(top).parts[:-1]
            people.add(person)
            yield split, person, below, path.relative_to(root).as_posix()
        without = (p for p in subfolders(top) if not (p.name in people or str(p) in ignored.links))
        ignored.people += [str(path.relative_to(root)) for path in without]


def images_below(root: Path, ignored: Ignored) -> list[Path]:
    """List the images in a folder and in all folders below it, in a fixed order.

    Links to folders are followed, but each folder is read once, under its own name if it has one
    below ``root``; those above ``root`` are not read.
    """
    found: list[tuple[list[tuple[bool, str]], Path]] = []
    seen = {*map(str, Path(os.path.realpath(root)).parents)}
    links: list[tuple[Path, list[tuple[bool, str]]]] = [(root, [])]

    def walk(folder: Path, place: list[tuple[bool, str]]) -> None:
        if (real := os.path.realpath(folder)) in seen:
            ignored.links.append(str(folder))
            return
        seen.add(real)
        folders, names = list_folder(folder)
        for name in ignored.images_of(names):
            found.append(([*place, (False, name)], folder / name))
        for name in folders:
            inner = folder / name, [*place, (True, name)]
            if inner[0].is_symlink():
                links.append(inner)  # later: what has a name of its own is read under that
            else:
                walk(*inner)

    for link in links:  # which grows
        walk(*link)
    # In the order of the places: the images of a folder before those of its folders.
    return [path for _, path in sorted(found)]


def _tops(root: Path) -> dict[Path, str | None]:
    """The folders that hold people's folders, each with its split."""
    folders = subfolders(root)
    splits = [path for path in folders if path.name.lower() in SPLITS]
    if not splits:
        return {root: None}
    if others := [path.name for path in folders if path not in splits]:
        raise ValueError(
            f"{root} holds {', '.join(path.name for path in splits)}, which are splits, and "
            f"{len(others)} other folders, such as {others[0]}: move these elsewhere; or if all "
            "are people, rename those with the name of a split"
        )
    return {path: path.name.lower() for path in splits}


def _camera_reader(camera: str) -> Callable[[str, Sequence[str]], str | None]:
    """A function from an image's path and the folders below the person's to the camera's name."""
    try:
        pattern = re.compile(CAMERA_IN_NAME if camera == "name" else camera)
    except re.error as error:
        raise ValueError(f"camera={camera} is not a regular expression: {error}") from error
    if pattern.groups != 1 and camera not in ("none", "folder"):
        raise ValueError(
            f"camera={camera} is a regular expression (not none, folder or name), but it has "
            f"{pattern.groups} groups (in parentheses), not one for the camera"
        )

    def read(path: str, below: Sequence[str]) -> str | None:
        if camera == "none":
            return None
        if camera == "folder":
            if not below:
                where = f"PERSON/CAMERA/, but {path} is right in the person's folder"
                raise ValueError(f"with camera=folder images are in {where}")
            return below[0]
        match = pattern.search(path.rpartition("/")[2] if camera == "name" else path)
        if match is None or not match[1]:
            raise ValueError(
                f"no camera is found in {path} with camera={camera}. Give a regular expression "
                r"(camera=_cam(\d+)), or choose camera=none"
            )
        return match[1]

    return read


def _warn_of_unread_cameras(root: Path, images: Sequence[NamedImage], is_below: bool) -> None:
    if is_below:
        _logger.warning(
            "%s: all images are in folders below those of people, such as %s. Are these the "
            "cameras (folder:camera=folder), or is the data set a folder below?",
            *(root, images[0].path),
        )
    names = (image.path.rpartition("/")[2] for image in images)
    alike = [name for name in names if _MARKET_NAME.match(name)]
    if len(alike) > len(images) / 2:
        _logger.warning(
            "names such as %s seem to contain the camera. camera=name reads it; without "
            "it, matches within the same camera count as well",
            alike[0],
        )
