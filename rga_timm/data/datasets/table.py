"""`table`: users' own images, listed in a CSV or Parquet file.

    path,identity,camera,split
    2024/05/a1.jpg,anna,hall,train
    2024/05/b7.jpg,ben,door,test

Columns, which options call otherwise:

- ``path``, relative to the table's folder (or to the option ``images``).
- ``identity``: who it is, any text.
- ``camera``: which camera took it, any text. Left out where it is not known.
- ``split``: ``train``, ``query``, ``gallery`` or ``test``, which is query and gallery; also
  ``val``, ``valid``, ``validation``. Where the column is left out, people are split at random, as
  `rga_timm.data.identity_split` says.
- ``tracklet``: images of one tracklet are tested as one, by their mean feature.
- ``left``, ``top``, ``right``, ``bottom``: the box to cut out, in pixels, ``right`` and ``bottom``
  just outside of it. All four are empty where it is the whole image.

CSV is UTF-8, with commas, semicolons or tabs between the cells.
"""

import csv
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

SPLIT_SUFFIX = ".split.csv"  # people.csv is split as people.split.csv says
BOX_COLUMNS = "left top right bottom"
_BOX = ("left", "top", "right", "bottom")
# These need not be there, if they are called like this.
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

    If all people are called by whole numbers, these are the pids; else the pids are 1, 2, … in the
    sorted order of the names. Cameras and tracklets are numbered in the same way.

    A column with its usual name is read if it is there. A column that an option renames has to be
    there, and with None it is not read. A name with a comma in it has to be given as an argument.
    Errors have FILE:LINE, for Parquet FILE: row N, from 1.

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
        test_share: Where there is no split: the share of the people to test on.
        seed: Where there is no split: of the random split.
        split_file: Where the split by identity is kept: for NAME.csv in NAME.split.csv beside it.
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
            "four. With box=none they are not read"
        )
    listed = []
    for place, texts in content.rows([*dict.fromkeys(columns.values())]):
        cells = {role: texts[name].strip() for role, name in columns.items()}
        if not cells["path"]:
            raise ValueError(f"{place} has no path (column {path!r})")
        # The path as it is: a file's name may begin with a space.
        listed.append(
            image_of_row(place, texts[path], cells, columns, _box(place, cells) if sides else None)
        )
    if not listed:
        raise ValueError(f"{file} has a header but no rows")
    _check_listed_once(listed, same_numbering)
    _check_there(folder, listed)
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

    What is both a query and a gallery image gets the split ``test``. Rows are in the order of
    train, query, and the rest of the gallery.

    Args:
        splits: Any whose images are files. People, cameras and tracklets are written as numbers.
        path: The file to make, ``….csv``. Beside the images (in ``splits.root``) it can be moved
            together with them.

    Returns:
        The options with which `table` reads the same, if any: the folder of the images where the
        file is elsewhere, and what the file does not say of the protocol.

    Raises:
        ValueError: The images are not files of their own; one is twice in a split, or both trained
            and tested on as different people, which no table can say; ``path`` is not a ``.csv``.
        FileExistsError: There is such a file.
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
    with path.open("x", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore")
        writer.writeheader()
        for split, image in rows:
            cells: dict[str, Any] = {"path": image.path, "identity": image.pid, "split": split}
            cells["camera"] = image.camid
            cells["tracklet"] = image.tracklet if image.tracklet != NO_TRACKLET else ""
            cells.update(zip(_BOX, image.box or [""] * 4, strict=True))
            writer.writerow(cells)
    options: dict[str, Any] = {}
    if splits.root.resolve() != path.parent.resolve():
        options["images"] = str(splits.root)
    if not splits.same_numbering:
        options["same_numbering"] = False
    if splits.single_gallery_shot:
        options["single_gallery_shot"] = True
    return options


def _find(root: Path | None) -> Path:
    """The table's file."""
    expected = "Expected a CSV or Parquet file, or a folder that holds exactly one"
    if root is None:
        raise FileNotFoundError(f"table needs the file. {expected}")
    if root.is_file():
        return root
    if not root.is_dir():
        raise FileNotFoundError(f"{root} does not exist. {expected}")
    found = [
        name
        for name in file_names(root)
        # Not .txt: that may be anything.
        if name.lower().endswith((".csv", ".tsv", *PARQUET_EXTENSIONS))
        and not name.lower().endswith(SPLIT_SUFFIX)
    ]
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
    if not all(re.fullmatch("[0-9]{1,9}", text) for text in texts):
        raise ValueError(
            f"{place} has the box {', '.join(map(repr, texts))}, which should be four whole "
            f"numbers of pixels from 0, {', '.join(_BOX)}; or four empty cells for the whole image"
        )
    left, top, right, bottom = map(int, texts)
    if left >= right or top >= bottom:
        raise ValueError(
            f"{place} has an empty box: left {left}, top {top}, right {right}, bottom {bottom}"
        )
    return left, top, right, bottom


def _check_listed_once(images: Sequence[NamedImage], same_numbering: bool) -> None:
    """No image is twice in a split, or is two people."""
    where: dict[Any, NamedImage] = {}
    who: dict[Any, NamedImage] = {}
    for image in images:
        pixels = (posixpath.normpath(image.path), image.box)
        side = image.split == "train" and not same_numbering
        other = who.setdefault((*pixels, side), image)
        if other.identity != image.identity:
            raise ValueError(
                f"{image.place}: {image.path!r} is {image.identity!r}, but {other.identity!r} at "
                f"{other.place}"
            )
        for split in SPLITS[image.split or "train"]:
            if (other := where.setdefault((*pixels, split), image)) is not image:
                raise ValueError(
                    f"{image.place}: {image.path!r} is listed for the second time, after "
                    f"{other.place}" + (f", in {split}" if image.split else "")
                )


def _check_there(folder: Path, images: Sequence[NamedImage]) -> None:
    """All files are there."""
    present = ListedFiles(folder)
    missing = [
        image
        for image in images
        # A file system that takes upper for lower case lists another name than it opens.
        if image.path not in present and not os.path.isfile(folder / image.path)
    ]
    if missing:
        raise FileNotFoundError(
            f"{missing[0].place}: there is no file {folder / missing[0].path}; {len(missing)} of "
            f"{len(images)} images are missing. Paths start from {folder}: the option images names "
            "another folder"
        )
