"""Folders below a folder, and which of them fit a data set's layouts."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..layout import Layout, readable_subfolders
from ..registry import DatasetInfo

_MOST_FOLDERS = 20_000  # below a folder with more than that, a search is not worth its time

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def levels_below(root: Path, depth: int) -> Iterator[list[Path]]:
    """The folder itself, what is right below it, and so on, ``depth`` levels down."""
    level, seen = [root], 0
    for _ in range(depth + 1):
        yield level
        seen += len(level)
        if seen > _MOST_FOLDERS:
            return
        level = [below for folder in level for below in readable_subfolders(folder)]


def fitting(info: DatasetInfo, folders: Iterable[Path]) -> list[tuple[Path, Layout]]:
    """The folders that hold all of a layout of a data set, each with the first that fits."""
    return [
        (folder, layout)
        for folder in folders
        if (layout := next((fit for fit in info.layouts if not fit.missing_in(folder)), None))
    ]
