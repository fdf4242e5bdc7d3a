"""Which data set is in a folder, of all that are registered."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..layout import (
    SEARCH_DEPTH,
    Layout,
    file_names,
    find_layout,
    fitting,
    levels_below,
    listing,
    nearest_layouts,
    plain_name,
)
from ..registry import DatasetInfo, dataset_info, list_datasets, why_withdrawn
from ..splits import ReidSplits
from .finding import Finding
from .people import check_counts

_MOST_HINTS = 3
_MOSTLY_MISSING = 0.7  # share of a layout; beyond it, a folder called train is no hint
_UNPACK = {".zip": "unzip", ".rar": "unrar x", ".7z": "7z x"} | dict.fromkeys(
    (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), "tar xf"
)


@dataclass(frozen=True)
class Identification:
    """What a folder is.

    Attributes:
        splits: The data set; None where there is none, or more than one.
        info: What is registered of it.
        layout: Its layout there.
        why: How it was told from other data sets in the same layout; empty where there is none.
        findings: Why there are no `splits`.
    """

    splits: ReidSplits | None = None
    info: DatasetInfo | None = None
    layout: Layout | None = None
    why: str = ""
    findings: tuple[Finding, ...] = ()


class _Candidate(NamedTuple):
    """A data set that can be read, and whether its published counts and its name fit."""

    info: DatasetInfo
    layout: Layout
    splits: ReidSplits
    has_counts: bool
    has_name: bool

    @property
    def score(self) -> tuple[bool, bool]:
        return self.has_counts, self.has_name


def identify(root: Path) -> Identification:
    """Find out which data set a folder holds.

    Tries the layouts of all registered data sets, with their default options. Where several fit,
    those that cannot be read drop out, an outer folder wins over the folders in it, and then the
    published counts and the name of the folder decide.

    Args:
        root: The folder.

    Returns:
        The data set, or what to do where there is none.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        return _nothing(Finding("not_found", "error", f"{root} {what}", "Give a folder."))
    infos = [info for name in list_datasets() if (info := dataset_info(name)).layouts]
    folders = [folder for level in levels_below(root) for folder in level]
    candidates: list[_Candidate] = []
    problems: dict[str, Finding] = {}  # by text: data sets in the same layout find the same
    for info in infos:
        # Before find_layout, which would list all folders anew for each data set.
        if fitting(info.layouts, [*folders, root.resolve().parent]):
            found = _try(info, root, bool(fitting(info.layouts, folders)))
            if isinstance(found, _Candidate):
                candidates.append(found)
            elif found is not None:
                problems[found.text] = found
    outer = [
        candidate
        for candidate in candidates
        if not any(other.splits.root in candidate.splits.root.parents for other in candidates)
    ]
    if not outer:
        withdrawn = list(filter(None, map(_withdrawn, [root.resolve(), *folders])))
        found_none = list(problems.values()) or withdrawn or _explain(root, infos, folders)
        return _nothing(*found_none)
    if len({candidate.splits.root for candidate in outer}) > 1:
        items = [{"folder": str(each.splits.root), "dataset": each.info.name} for each in outer]
        text, fix = f"{root} holds several data sets", "Give the folder of one of them."
        return _nothing(Finding("several", "error", text, fix, items))
    ranked = sorted(outer, key=lambda candidate: candidate.score, reverse=True)
    best, others = ranked[0], ", ".join(candidate.info.name for candidate in ranked[1:])
    why = ""
    if others:
        reason = "nothing tells them apart here, so this is a guess: "
        if best.score != ranked[1].score:
            reason = "the published counts are its counts" if best.has_counts else ""
            reason = (reason or "the folder is called so") + ". Otherwise "
        why = f"{others} would fit too; {reason}name one with --dataset"
    return Identification(best.splits, best.info, best.layout, why)


def _nothing(*findings: Finding) -> Identification:
    return Identification(findings=findings)


def _try(info: DatasetInfo, root: Path, is_below: bool) -> _Candidate | Finding | None:
    """Read a data set; what is in the way, if it is worth telling."""
    try:
        folder, layout = find_layout(info.name, root, info.layouts)
    except FileNotFoundError as error:  # several folders, if it fits at all
        fix = "Give the folder of one of them."
        return Finding("ambiguous", "error", f"{error}", fix) if is_below else None
    if withdrawn := _withdrawn(folder.resolve()):
        return withdrawn
    try:
        splits = info.factory(folder)
    except Exception as error:  # a reader may fail in any way on the files of another data set
        return Finding(
            "cannot_read",
            "error",
            f"{folder} has {info.title}'s layout, {layout}, but cannot be read as that: "
            f"{str(error) or type(error).__name__}",
            f"Fix that, then run this again with --dataset {info.name} and the options that it "
            "names; or is it another data set?",
        )
    if splits.published is None:
        splits = replace(splits, published=info.published)
    has_counts = bool(splits.published) and not check_counts(splits)
    has_name = plain_name(info.name) in plain_name(folder.resolve().name)
    return _Candidate(info, layout, splits, has_counts, has_name)


def _withdrawn(folder: Path) -> Finding | None:
    if (reason := why_withdrawn(folder.name)) is None:
        return None
    fix = "Take another data set, and delete this one."
    return Finding("withdrawn", "error", f"{folder}: {reason}.", fix)


def _explain(root: Path, infos: Iterable[DatasetInfo], folders: list[Path]) -> list[Finding]:
    """That no data set was found, and what may be in the way: archives, missing parts of one."""
    text = (
        f"no data set was found in {root} or up to {SEARCH_DEPTH} folders below; it holds "
        f"{listing(root)}"
    )
    fix = (
        f"Give the folder of one of the known data sets: {', '.join(i.name for i in infos)}. "
        "Images of your own can be read with --dataset folder (a folder for each person) or "
        "--dataset table (a table that says who is in which image)."
    )
    findings = [Finding("not_found", "error", text, fix)]
    commands = [
        f"cd {shlex.quote(str(folder))} && {command} {shlex.quote(name)}"
        for folder in folders
        for name in file_names(folder)
        for ending, command in _UNPACK.items()
        if name.lower().endswith(ending)
    ]
    if commands:
        items = [{"command": command} for command in commands]
        text = f"{len(commands)} archives are there. Are they unpacked?"
        findings.append(Finding("packed", "note", text, "Unpack them by these commands.", items))
    title_of = {layout: info for info in infos for layout in info.layouts}
    for share, folder, layout, missing in nearest_layouts(title_of, folders)[:_MOST_HINTS]:
        if share <= _MOSTLY_MISSING:
            info = title_of[layout]
            text = (
                f"{folder} could be {info.title} ({info.name}) in {layout.name} layout "
                f"({', '.join(layout.paths)}), but lacks {', '.join(missing)}"
            )
            fix = "Unpack or download again what is missing."
            findings.append(Finding("incomplete", "note", text, fix))
    return findings
