"""Find a data set in a folder, and read its names and lists: what all data sets have in common."""

import fnmatch
import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_logger = logging.getLogger(__name__)

SEARCH_DEPTH = 2  # how many levels below the given folder a data set may be
_NOT_DATA = ("thumbs.db", "desktop.ini", "__macosx")


@dataclass(frozen=True)
class Layout:
    """One way in which a data set is stored on disk."""

    name: str  # whose layout it is, such as "the archive's own"
    paths: tuple[str, ...]  # that must exist, relative to the layout's root; may be `glob` patterns

    def missing_in(self, folder: Path) -> list[str]:
        """List those of `paths` that a folder does not hold."""
        return [path for path in self.paths if not any(glob.iglob(path, root_dir=folder))]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.paths)})"


def find_layout(name: str, root: Path | None, layouts: Sequence[Layout]) -> tuple[Path, Layout]:
    """Find a data set in a folder or below it.

    Looks in ``root`` itself, then in its subfolders, then a level deeper; and in the folder above
    if ``root`` is one of the data set's own folders. Earlier layouts win over later ones. Of
    several folders in the same layout, the one whose name contains ``name`` is taken. Returns the
    layout's root and the layout.

    Raises:
        FileNotFoundError: No layout fits, or several folders do. The error says what is missing.
    """
    known = "; ".join(map(str, layouts))
    expected = f"Expected one of these layouts, or a folder around it: {known}"
    if root is None:
        raise FileNotFoundError(f"{name} needs the folder of the data set. {expected}")
    if not root.is_dir():
        kind = "is a file, not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(f"{root} {kind}. {expected}")
    seen: list[Path] = []
    for level in levels_below(root):
        if found := fitting(layouts, level):
            return _choose(name, root, found)
        seen += level
    # Not resolve(): the folder above a link is the one that holds the link.
    inner = Path(os.path.abspath(root))
    for layout in layouts:
        is_part = any(fnmatch.fnmatch(inner.name, path.split("/")[0]) for path in layout.paths)
        if is_part and not layout.missing_in(inner.parent):
            _logger.info("%s is in the folder above %s: reading that", name, root)
            return inner.parent, layout
    nearest = ""
    if near := nearest_layouts(layouts, seen):
        _, folder, layout, missing = near[0]
        where = "it" if folder == root else str(folder)
        nearest = f"As {layout.name} layout {where} lacks {', '.join(missing)}. "
    text = f"{name} was not found in {root}, which holds {listing(root)}"
    raise FileNotFoundError(f"{text}. {nearest}{expected}")


def levels_below(root: Path) -> Iterator[list[Path]]:
    """Yield the folder itself, then its readable subfolders, and so on, `SEARCH_DEPTH` levels.

    A folder to which several links lead comes once.
    """
    level, seen = [root], {os.path.realpath(root)}
    for _ in range(SEARCH_DEPTH):
        yield level
        # A disk's root has a ``lost+found`` that may not be read.
        below = [path for folder in level for path in subfolders(folder)]
        level = []
        for path in below:
            if os.access(path, os.R_OK | os.X_OK) and (real := os.path.realpath(path)) not in seen:
                level.append(path)
                seen.add(real)
    yield level


def fitting(layouts: Sequence[Layout], folders: Iterable[Path]) -> list[tuple[Path, Layout]]:
    """List the folders that hold all of a layout, each with the first layout that fits."""
    return [
        (folder, layout)
        for folder in folders
        if (layout := next((fit for fit in layouts if not fit.missing_in(folder)), None))
    ]


def nearest_layouts(
    layouts: Iterable[Layout], folders: Sequence[Path]
) -> list[tuple[float, Path, Layout, list[str]]]:
    """List partly present layouts, best first: missing share, folder, layout, missing paths."""
    partial = [
        (len(missing) / len(layout.paths), folder, layout, missing)
        for folder in folders
        for layout in layouts
        if 0 < len(missing := layout.missing_in(folder)) < len(layout.paths)
    ]
    return sorted(partial, key=lambda item: item[0])


def subfolders(folder: Path) -> list[Path]:
    """List the subfolders, sorted, without those that operating systems leave behind."""
    return [folder / name for name in list_folder(folder)[0]]


def file_names(folder: Path) -> list[str]:
    """List the names of the files in a folder, sorted, without what operating systems leave."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return list_folder(folder)[1]


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """List the names of the subfolders and of the files, sorted, as `subfolders` and `file_names`.

    Pipes, sockets and devices are neither: to read one may never end. A link that leads nowhere is
    a file, so that reading it says what is wrong.
    """
    names: tuple[list[str], list[str]] = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_data(entry.name) and (kind := _kind(entry)) is not None:
                names[kind].append(entry.name)
    return sorted(names[0]), sorted(names[1])


def _kind(entry: os.DirEntry[str]) -> int | None:
    """Return 0 for a folder, 1 for a file."""
    try:
        # As listed. Not Path.is_file(), which on a network drive can ask the server about each.
        if entry.is_dir() or entry.is_file():
            return int(not entry.is_dir())
    except OSError:  # a link to itself
        return 1
    return None if os.path.exists(entry) else 1


def is_data(name: str) -> bool:
    """Tell names of data from those that macOS (._*) and Windows leave in folders."""
    return not name.startswith(".") and name.lower() not in _NOT_DATA


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Read the lines of a list that are not empty, each with its place ``FILE:LINE`` for errors.

    A missing list is a FileNotFoundError, an empty or binary one a ValueError.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no list {path}")
    try:
        # Not splitlines(), which breaks names at rarer characters too.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: {error}") from error
    numbered = enumerate(map(str.strip, lines), start=1)
    if found := [(f"{path}:{number}", line) for number, line in numbered if line]:
        return found
    raise ValueError(f"the list {path} is empty")


class ListedFiles:
    """Tells whether ``"a/b.jpg" in files``, listing each folder once, for slow network drives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, frozenset[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            place = self.root / folder
            entries = os.scandir(place) if place.is_dir() else ()
            self._folders[folder] = frozenset(e.name for e in entries if _kind(e) == 1)
        return name in self._folders[folder]


def listing(folder: Path, limit: int = 8) -> str:
    """Say what a folder holds."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing: it is empty"


def plain_name(name: str) -> str:
    """Drop case, spaces and punctuation: market1501 is in Market-1501-v15.09.15."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _choose(name: str, root: Path, found: list[tuple[Path, Layout]]) -> tuple[Path, Layout]:
    """Choose, of several folders that fit, the only one whose name contains the data set's."""
    named = [item for item in found if plain_name(name) in plain_name(item[0].name)]
    candidates = named or found
    if len(candidates) == 1:
        return candidates[0]
    folders = ", ".join(str(folder.relative_to(root)) for folder, _ in candidates)
    text = f"{root} holds several folders that could be {name} ({folders}): name one of them"
    raise FileNotFoundError(text)
