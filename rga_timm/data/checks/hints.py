"""What may be in the way where a folder holds no data set that is known."""

import difflib
import fnmatch
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..layout import SEARCH_DEPTH, Layout, is_data, listing, plain_name
from ..registry import DatasetInfo, list_datasets
from .finding import Finding
from .tree import IMAGE_ENDINGS, fitting, levels_below

_DEEPEST = 6  # levels below the folder that are searched for a data set
_HIGHEST = 4  # levels above it
# Shares of a layout that are missing. Up to the first it is that data set; beyond the second, a
# folder called train or so is no hint at all.
_MOSTLY_THERE, _BARELY_THERE = 0.5, 0.7

_UNPACK = {
    ".zip": "unzip",
    ".tar": "tar xf",
    ".tar.gz": "tar xf",
    ".tgz": "tar xf",
    ".tar.bz2": "tar xf",
    ".tar.xz": "tar xf",
    ".rar": "unrar x",
    ".7z": "7z x",
}
_TABLES = (".csv", ".tsv", ".parquet")
_ARROW = ("dataset_dict.json", "dataset_info.json", "state.json")
_SPLIT_NAMES = {"train", "training", "val", "validation", "test", "testing", "query", "gallery"}


def find_hints(root: Path, infos: Sequence[DatasetInfo]) -> list[Finding]:
    """Why nothing was found, and what to do about it.

    Args:
        root: Folder in which no data set was found.
        infos: The data sets that were looked for.

    Returns:
        An error that says what is there, then whatever explains it, the likeliest first.
    """
    if not root.exists():
        return [_hint("missing", f"{root} does not exist", "Is the path right?")]
    if not root.is_dir():
        return _of_file(root)
    what = f"no data set was found in {root}, which holds {listing(root)}"
    partial = _partial(root, infos)
    hints = [
        *_above(root, infos),
        *_deeper(root, infos),
        *_packed(root),
        *(hint for _, hint in partial),
    ]
    if not partial or partial[0][0] > _MOSTLY_THERE:
        hints += _one_folder_a_person(root, infos)
    hints += _tables(root)
    known = ", ".join(info.name for info in infos)
    mend = "" if hints else f"Give the folder of one of the known data sets: {known}."
    folders = (folder for level in levels_below(root, SEARCH_DEPTH) for folder in level)
    images = (image for folder in folders for image in _images(folder))
    if not hints and (image := next(images, None)):
        mend += (
            f" Data of your own, such as {image}, need to say who is in which image: by a table "
            "(--dataset table), or by a folder for each person (--dataset folder)."
        )
    # The error is one; the rest may explain it.
    return [_hint("not_found", what, mend), *(replace(hint, level="note") for hint in hints)]


def _hint(kind: str, text: str, mend: str) -> Finding:
    return Finding(kind, "error", text, mend)


def _of_file(file: Path) -> list[Finding]:
    if _unpacking(file):
        return [_packed_files([file])]
    if file.suffix.lower() in _TABLES:
        return [_table(file)]
    return [_hint("not_found", f"{file} is a file", "Give the folder of a data set.")]


def _above(root: Path, infos: Sequence[DatasetInfo]) -> Iterator[Finding]:
    """A folder somewhere inside a data set was given."""
    for folder in root.resolve().parents[:_HIGHEST]:
        names = [info.name for info in infos if fitting(info, [folder])]
        if names:
            text = f"{root} lies inside {folder}, which has the layout of {_or(names)}"
            yield _hint("inside", text, f"Give {folder}.")
            return


def _deeper(root: Path, infos: Sequence[DatasetInfo]) -> Iterator[Finding]:
    """The data set lies deeper than anybody looks."""
    for depth, level in enumerate(levels_below(root, _DEEPEST)):
        if depth <= SEARCH_DEPTH:
            continue
        found = [(folder, info.name) for info in infos for folder, _ in fitting(info, level)]
        if found:
            folder = found[0][0]
            names = [name for other, name in found if other == folder]
            text = f"{folder} has the layout of {_or(names)}, {depth} folders below {root}"
            yield _hint("deeper", text, f"Give {folder}.")
            return


def _packed(root: Path) -> Iterator[Finding]:
    """Archives that nobody has unpacked."""
    files = [file for level in levels_below(root, 1) for folder in level for file in _files(folder)]
    archives = [file for file in files if _unpacking(file)]
    if archives:
        yield _packed_files(archives)


def _packed_files(archives: list[Path]) -> Finding:
    names = ", ".join(file.name for file in archives[:3]) + ", ..." * (len(archives) > 3)
    text = f"{len(archives)} archives lie there ({names}). Are they unpacked?"
    items = [{"command": _unpacking(file)} for file in archives]
    return Finding("packed", "error", text, "Unpack them by these commands.", items)


def _unpacking(file: Path) -> str | None:
    """The command that unpacks an archive; None of other files."""
    name = file.name.lower()
    command = next((_UNPACK[ending] for ending in _UNPACK if name.endswith(ending)), None)
    if command is None:
        return None
    return f"cd {shlex.quote(str(file.parent))} && {command} {shlex.quote(file.name)}"


def _partial(
    root: Path, infos: Sequence[DatasetInfo], limit: int = 3
) -> list[tuple[float, Finding]]:
    """The layouts of which a part is there, each after the share that it lacks, smallest first."""
    folders = [folder for level in levels_below(root, SEARCH_DEPTH) for folder in level]
    partial = []
    for info in infos:
        for layout in info.layouts:
            lacking = [(layout.missing_in(folder), folder) for folder in folders]
            # Of equal ones the outermost folder, which comes first.
            missing, folder = min(lacking, key=lambda pair: len(pair[0]))
            share = len(missing) / len(layout.paths)
            if 0 < share <= _BARELY_THERE and len(missing) < len(layout.paths):
                text = (
                    f"{folder} could be {info.title} ({info.name}) in {_layout(layout)}, but "
                    f"lacks {', '.join(missing)}"
                )
                hint = _hint("incomplete", text, _mend_partial(folder, layout, missing))
                partial.append((share, hint))
    return sorted(partial, key=lambda pair: pair[0])[:limit]


def _mend_partial(folder: Path, layout: Layout, missing: list[str]) -> str:
    """What to do about missing paths: other names for them, if there are such, or unpack again."""
    entries = {
        entry.name: plain_name(entry.name)
        for entry in folder.iterdir()
        if is_data(entry.name)
        and not any(fnmatch.fnmatch(entry.name, path.split("/")[0]) for path in layout.paths)
    }
    renames = []
    for path in missing:
        close = [name for name, plain in entries.items() if _are_close(plain, plain_name(path))]
        if "/" not in path and len(close) == 1:
            renames.append(f"{close[0]} to {path}")
    advice = "Unpack or download again what is missing."
    return f"Rename {', '.join(renames)}? Or: {advice.lower()}" if renames else advice


def _are_close(name: str, wanted: str) -> bool:
    contained = min(len(name), len(wanted)) >= 4 and (name in wanted or wanted in name)
    return contained or bool(difflib.get_close_matches(name, [wanted], cutoff=0.75))


def _one_folder_a_person(root: Path, infos: Sequence[DatasetInfo]) -> Iterator[Finding]:
    """One's own data, with the people's ids as the names of folders."""
    parts = {
        path.split("/")[0] for info in infos for layout in info.layouts for path in layout.paths
    }
    for level in levels_below(root, 1):
        for folder in level:
            below = list(levels_below(folder, 1))[1]
            names = {each.name.lower() for each in below}
            # A data set's own folders are no people.
            known = any(fnmatch.fnmatch(name, part) for name in names for part in parts)
            if len(below) < 2 or names & _SPLIT_NAMES or known:
                continue
            if all(any(True for _ in _images(each)) for each in below[:20]):
                text = (
                    f"{folder} holds {len(below)} folders of images ({listing(folder, 3)}): "
                    "one for each person?"
                )
                yield _hint("folder_per_person", text, f"Read it {_as('folder')}.")
                return


def _tables(root: Path) -> Iterator[Finding]:
    """One's own data, with a table that says who is where."""
    for level in levels_below(root, 1):
        for folder in level:
            for file in _files(folder):
                if file.name in _ARROW:
                    text = f"{file} is of Hugging Face's datasets"
                    yield _hint("arrow", text, f"Read it {_as('hf')}.")
                    return
                # Not a split by identity, which the readers of one's own data leave.
                if file.suffix.lower() in _TABLES and not file.stem.endswith("split"):
                    yield _table(file)
                    return


def _table(file: Path) -> Finding:
    text = f"{file} is a table: does it say who is in which image?"
    return _hint("table", text, f"Then read it {_as('table')}.")


def _as(name: str) -> str:
    """How to read one's own data; only what is there is recommended."""
    own = f"with --dataset {name}"
    return own if name in list_datasets() else "with a reader of your own (@register_dataset)"


def _files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(each.name for each in entries if is_data(each.name) and each.is_file())
    except PermissionError:
        return []
    return [folder / name for name in names]


def _images(folder: Path) -> Iterator[Path]:
    """The image files right below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_data(entry.name) and entry.name.lower().endswith(IMAGE_ENDINGS):
                yield folder / entry.name


def _layout(layout: Layout) -> str:
    return f"{layout.name} layout ({', '.join(layout.paths)})"


def _or(names: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(names))
