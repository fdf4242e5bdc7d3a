"""`table`: users' own images, listed in a CSV or Parquet file.

    path,identity,camera,split
    2024/05/a1.jpg,anna,hall,train
    2024/05/b7.jpg,ben,door,test

The columns (options rename them):

- ``path``, relative to the table's folder (or to the option ``images``).
- ``identity``: the person, any text.
- ``camera``: any text. Leave the column out if cameras are not known.
- ``split``: ``train``, ``query``, ``gallery`` or ``test`` (both query and gallery); also ``val``,
  ``valid``, ``validation``. Without this column people are split at random, as described in
  `rga_timm.data.identity_split`.
- ``tracklet``: images of one tracklet are tested as one, by their mean feature.
- ``left``, ``top``, ``right``, ``bottom``: the box to cut out, in pixels of the upright image (as
  its EXIF orientation says), without the column ``right`` and the row ``bottom``. Fractions of
  pixels are taken in whole, and what is beyond the image's edge is left out. Leave all four empty
  for the whole image.

CSV is UTF-8, with commas, semicolons or tabs as delimiters. Backslashes in paths, as Windows writes
them, are read as slashes if there is such a file.
"""

import csv
import io
import math
import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..identity_split import DEFAULT_SEED, DEFAULT_SHARE, IdentitySplit
from ..layout import ListedFiles, file_names, listing
from ..named_images import SPLITS, Box, NamedImage, choose_columns, image_of_row, splits_from_names
from ..reader import NO_TRACKLET
from ..registry import register_dataset
from ..splits import ReidSplits
from ..table_file import PARQUET_EXTENSIONS, TableFile
from ..text_file import write_text

SPLIT_SUFFIX = ".split.csv"  # people.split.csv is the split of people.csv
BOX_COLUMNS = "left top right bottom"
_BOX = ("left", "top", "right", "bottom")
_NUMBER = re.compile(r"[-+]?[0-9]{1,9}(\.[0-9]*)?")
# These may be missing, unless an option renames them.
_OPTIONAL = ("camera", "split", "tracklet", *_BOX)


@register_dataset("table", title="a table of images")
def table(
    root: Path | None,
    *,
    path: str = "path",
    identity: str = "identity",
    camera: str | None = "camera",
    split_column: str | None = "split",
    tracklet: str | None = "tracklet",
    box: str | None = BOX_COLUMNS,
    images: str | None = None,
    same_numbering: bool = True,
    single_gallery_shot: bool = False,
    test_share: float = DEFAULT_SHARE,
    seed: int = DEFAULT_SEED,
    split_file: str | None = None,
) -> ReidSplits:
    """Images that a CSV or Parquet file lists; Parquet needs pyarrow.

    If the names of all people are whole numbers, these are the pids; else the pids are 1, 2, … in
    the sorted order of the names. Cameras and tracklets are numbered in the same way.

    Columns other than path and identity may be missing, unless an option renames them. With None a
    column is not read. A name with a comma must be given as an argument.

    Args:
        root: The file, or the folder that holds it and no other table.
        path: Name of this column.
        identity: Name of this column.
        camera: Name of this column.
        split_column: Name of the split's column.
        tracklet: Name of this column.
        box: Names of the four columns of the box, with spaces between them.
        images: Folder that the paths are relative to; the table's by default.
        same_numbering: Whether an identity means the same person in train and in the test splits.
        single_gallery_shot: Whether the protocol is a gallery with one random image of each person.
        test_share: The share of the people to test on, if there is no split.
        seed: Of the random split, if there is no split.
        split_file: File of the random split; NAME.split.csv beside NAME.csv by default.
    """
    file = _find(root)
    folder = Path(images).expanduser() if images else file.parent
    content = TableFile(file, expected=(path, identity))
    asked = {"path": path, "identity": identity, "camera": camera}
    asked |= {"split": split_column, "tracklet": tracklet, **_box_columns(box)}
    option_of = {"split": "split_column", **dict.fromkeys(_BOX, "box")}
    columns = choose_columns(file, content.columns, asked, _OPTIONAL, option_of)
    sides = [side for side in _BOX if side in columns]
    if sides and len(sides) < len(_BOX):
        raise ValueError(
            f"{file} has {', '.join(sides)} of the box's columns {', '.join(_BOX)}, but not all "
            "four. Choose box=none to ignore them"
        )
    listed = []
    for place, texts in content.rows([*dict.fromkeys(columns.values())]):
        cells = {role: texts[name].strip() for role, name in columns.items()}
        if not cells["path"]:
            raise ValueError(f"{place} has no path (column {path!r})")
        box_of_row = _box(place, cells) if sides else None
        # The path is not stripped: a file's name may begin with a space.
        listed.append(image_of_row(place, texts[path], cells, columns, box_of_row))
    if not listed:
        raise ValueError(f"{file} has a header but no rows")
    listed = _find_files(folder, listed)
    _check_listed_once(listed, same_numbering)
    kept_in = file.with_name(file.stem + SPLIT_SUFFIX)
    return splits_from_names(
        "table",
        folder,
        listed,
        IdentitySplit(kept_in, split_file, test_share, seed),
        same_numbering=same_numbering,
        single_gallery_shot=single_gallery_shot,
    )


def write_table(splits: ReidSplits, path: str | Path) -> dict[str, Any]:
    """Write a data set as a CSV file that `table` reads back, to be edited or filtered by hand.

    An image that is both query and gallery image gets the split ``test``.

    Args:
        splits: A data set of image files. People, cameras and tracklets are written as numbers.
        path: The ``.csv`` file to make. In ``splits.root`` it can be moved with the images.

    Returns:
        The options that `table` needs to read the same data set, such as the folder of the images.

    Raises:
        ValueError: The images are not files; an image is twice in a split, or has two identities;
            ``path`` is not a ``.csv``.
        FileExistsError: The file exists.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise ValueError(f"a table is written to a file that ends in .csv, not to {path}")
    if any(reader.opener for reader in splits.readers.values()):
        raise ValueError(f"the images of {splits.name} are not files that a table could list")
    query, gallery = set(splits.query.images), set(splits.gallery.images)
    rows = [
        *(("train", image) for image in splits.train.images),
        *(("test" if image in gallery else "query", image) for image in splits.query.images),
        *(("gallery", image) for image in splits.gallery.images if image not in query),
    ]
    _check_listed_once(
        [
            NamedImage(f"{splits.name}, {split}", i.path, str(i.pid), split=split, box=i.box)
            for split, i in rows
        ],
        splits.same_numbering,
    )
    header = ["path", "identity", "split"]
    header += ["camera"] * splits.has_cameras
    header += ["tracklet"] * any(image.tracklet != NO_TRACKLET for _, image in rows)
    header += [*_BOX] * any(image.box is not None for _, image in rows)
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    file = io.StringIO()
    writer = csv.DictWriter(file, header, extrasaction="ignore")
    writer.writeheader()
    for split, image in rows:
        tracklet = image.tracklet if image.tracklet != NO_TRACKLET else ""
        cells = {"path": image.path, "identity": image.pid, "split": split}
        cells |= {"camera": image.camid, "tracklet": tracklet}
        writer.writerow(cells | dict(zip(_BOX, image.box or [""] * 4, strict=True)))
    write_text(path, file.getvalue(), errors="surrogateescape")
    elsewhere = splits.root.resolve() != path.parent.resolve()
    options: dict[str, Any] = {"images": str(splits.root)} if elsewhere else {}
    options |= {} if splits.same_numbering else {"same_numbering": False}
    return options | ({"single_gallery_shot": True} if splits.single_gallery_shot else {})


def _find(root: Path | None) -> Path:
    """The table's file."""
    expected = "Expected a CSV or Parquet file, or a folder that holds exactly one"
    if root is None:
        raise FileNotFoundError(f"table needs the file. {expected}")
    if root.is_file():
        return root
    if not root.is_dir():
        raise FileNotFoundError(f"{root} does not exist. {expected}")
    extensions = (".csv", ".tsv", *PARQUET_EXTENSIONS)  # not .txt, which may be anything
    tables = [name for name in file_names(root) if name.lower().endswith(extensions)]
    found = [name for name in tables if not name.lower().endswith(SPLIT_SUFFIX)]
    if len(found) != 1:
        what = ", ".join(found[:5]) if found else listing(root)
        raise FileNotFoundError(f"{root} holds {what}. {expected}")
    return root / found[0]


def _box_columns(box: str | None) -> dict[str, str]:
    names = (box or "").split()
    if box is not None and len(names) != len(_BOX):
        raise ValueError(f"box names four columns, such as {BOX_COLUMNS!r}, not {box!r}")
    return dict(zip(_BOX, names, strict=False))


def _box(place: str, cells: dict[str, str]) -> Box | None:
    texts = [cells[side] for side in _BOX]
    if not any(texts):
        return None
    if not all(_NUMBER.fullmatch(text) for text in texts):
        raise ValueError(
            f"{place} has the box {', '.join(map(repr, texts))}, which should be four numbers of "
            f"pixels, {', '.join(_BOX)}; or four empty cells for the whole image"
        )
    first, last = map(float, texts[:2]), map(float, texts[2:])
    left, top, right, bottom = *map(math.floor, first), *map(math.ceil, last)
    if left >= right or top >= bottom or right <= 0 or bottom <= 0:
        sides = ", ".join(map(" ".join, zip(_BOX, texts, strict=True)))
        raise ValueError(f"{place} has a box with nothing in it: {sides}")
    return left, top, right, bottom


def _check_listed_once(images: Sequence[NamedImage], same_numbering: bool) -> None:
    """Raise a ValueError if an image is twice in a split, or has two identities."""
    where: dict[Any, NamedImage] = {}
    who: dict[Any, NamedImage] = {}
    for image in images:
        pixels = (posixpath.normpath(image.path), image.box)
        side = image.split == "train" and not same_numbering
        other = who.setdefault((*pixels, side), image)
        if other.identity != image.identity:
            both = f"is {image.identity!r}, but {other.identity!r} at {other.place}"
            raise ValueError(f"{image.place}: {image.path!r} {both}")
        for split in SPLITS[image.split or "train"]:
            if (other := where.setdefault((*pixels, split), image)) is not image:
                after = other.place + (f", in {split}" if image.split else "")
                raise ValueError(f"{image.place}: {image.path!r} is listed twice, after {after}")


def _find_files(folder: Path, images: Sequence[NamedImage]) -> list[NamedImage]:
    """Replace backslashes where the file is found so, or raise a FileNotFoundError."""
    present = ListedFiles(folder)

    def is_there(path: str) -> bool:
        # Asked again, as some file systems ignore case.
        return path in present or os.path.isfile(folder / path)

    found, missing = [], []
    for image in images:
        spellings = dict.fromkeys((image.path, image.path.replace("\\", "/")))
        path = next(filter(is_there, spellings), None)
        found.append(image._replace(path=path or image.path))
        missing += [] if path else [image]
    if missing:
        hint = f"Paths start from {folder}: the option images names another folder"
        if not missing[0].path.isprintable():
            hint += ". Is the table UTF-8 text?"
        raise FileNotFoundError(
            f"{missing[0].place}: there is no file {folder / missing[0].path}; {len(missing)} of "
            f"{len(images)} images are missing. {hint}"
        )
    return found
