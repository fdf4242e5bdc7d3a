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

SEARCH_DEPTH = 2  # how many folders too many may be around a data set
_NOT_DATA = ("thumbs.db", "desktop.ini", "__macosx")


@dataclass(frozen=True)
class Layout:
    """One way in which a data set is stored on disk.

    Attributes:
        name: Whose layout it is, such as ``"the archive's own"``.
        paths: Files and folders that must be there, relative to the layout's root; `glob`
            wildcards.
    """

    name: str
    paths: tuple[str, ...]

    def missing_in(self, folder: Path) -> list[str]:
        """Those of `paths` that a folder does not hold."""
        return [path for path in self.paths if not _holds(folder, path)]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.paths)})"


def find_layout(name: str, root: Path | None, layouts: Sequence[Layout]) -> tuple[Path, Layout]:
    """Find a data set in a folder or below it.

    Looks at ``root`` itself, then at what is right below it, then a level deeper; and at the folder
    above where ``root`` is one of the data set's own folders. Earlier layouts win over later ones.

    Args:
        name: Of the data set, as registered. Of several data sets in the same layout, the one in a
            folder that is called like it is taken.
        root: Folder of the data set, or one around it.
        layouts: Those that it is known to have.

    Returns:
        The layout's root and the layout.

    Raises:
        FileNotFoundError: No layout fits, or several folders do. The error says what was expected,
            what is there, and what the nearest layout lacks.
    """
    expected = f"Expected one of these layouts, or a folder around it: {_join(layouts)}"
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
    raise FileNotFoundError(
        f"{name} was not found in {root}, which holds {listing(root)}. {nearest}{expected}"
    )


def levels_below(root: Path, depth: int = SEARCH_DEPTH) -> Iterator[list[Path]]:
    """Yield the folder itself, then the folders right below it, and so on, ``depth`` levels."""
    level = [root]
    for _ in range(depth):
        yield level
        level = [below for folder in level for below in _readable_subfolders(folder)]
    yield level


def fitting(layouts: Sequence[Layout], folders: Iterable[Path]) -> list[tuple[Path, Layout]]:
    """The folders that hold all of a layout, each with the first layout that fits."""
    return [
        (folder, layout)
        for folder in folders
        if (layout := next((fit for fit in layouts if not fit.missing_in(folder)), None))
    ]


def nearest_layouts(
    layouts: Iterable[Layout], folders: Sequence[Path]
) -> list[tuple[float, Path, Layout, list[str]]]:
    """Layouts of which a part is there, best first: missing share, folder, layout, its gaps."""
    partial = [
        (len(missing) / len(layout.paths), folder, layout, missing)
        for folder in folders
        for layout in layouts
        if 0 < len(missing := layout.missing_in(folder)) < len(layout.paths)
    ]
    return sorted(partial, key=lambda item: item[0])


def subfolders(folder: Path) -> list[Path]:
    """The folders right below one, sorted, without those that operating systems leave behind."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_data(entry.name) and entry.is_dir()]
    return [folder / name for name in sorted(names)]


def file_names(folder: Path) -> list[str]:
    """The names of the files right below a folder, sorted, without what operating systems leave.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    with os.scandir(folder) as entries:
        # Not is_file(): on a network drive that can be a question to the server for each file.
        return sorted(entry.name for entry in entries if is_data(entry.name) and not entry.is_dir())


def is_data(name: str) -> bool:
    """Whether a name is not one of those that macOS (._*) and Windows leave in folders."""
    return not name.startswith(".") and name.lower() not in _NOT_DATA


def read_lines(path: Path) -> list[tuple[str, str]]:
    """The lines of a list that are not empty, each with its place ``FILE:LINE`` for errors.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a text file, or empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no list {path}")
    try:
        # Not splitlines(), which breaks names at rarer characters too.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: {error}") from error
    numbered = ((f"{path}:{number}", line.strip()) for number, line in enumerate(lines, start=1))
    found = [(place, line) for place, line in numbered if line]
    if not found:
        raise ValueError(f"the list {path} is empty")
    return found


class ListedFiles:
    """Whether files are there, by listing each of their folders once: ``"a/b.jpg" in files``.

    On a network drive each question about one file is a question to the server.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, frozenset[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            try:
                self._folders[folder] = frozenset(os.listdir(self.root / folder))
            except (FileNotFoundError, NotADirectoryError):
                self._folders[folder] = frozenset()
        return name in self._folders[folder]


def listing(folder: Path, limit: int = 8) -> str:
    """What a folder holds, in words."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing: it is empty"


def plain_name(name: str) -> str:
    """A name without case, spaces and punctuation: market1501 is in Market-1501-v15.09.15."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _holds(folder: Path, path: str) -> bool:
    if not glob.has_magic(path):
        return (folder / path).exists()
    return any(True for _ in glob.iglob(path, root_dir=folder))


def _readable_subfolders(folder: Path) -> list[Path]:
    """Those of `subfolders` that may be read: a disk's root has a closed ``lost+found``."""
    return [path for path in subfolders(folder) if os.access(path, os.R_OK | os.X_OK)]


def _choose(name: str, root: Path, found: list[tuple[Path, Layout]]) -> tuple[Path, Layout]:
    """One of several folders that fit: the only one that is called like the data set."""
    called = [item for item in found if plain_name(name) in plain_name(item[0].name)]
    candidates = called or found
    if len(candidates) == 1:
        return candidates[0]
    folders = ", ".join(str(folder.relative_to(root)) for folder, _ in candidates)
    raise FileNotFoundError(
        f"{root} holds several folders that could be {name} ({folders}): name one of them"
    )


def _join(layouts: Sequence[Layout]) -> str:
    return "; ".join(map(str, layouts))
