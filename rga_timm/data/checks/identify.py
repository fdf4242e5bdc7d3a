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
    """Which data set a folder holds."""

    splits: ReidSplits | None = None  # None if there is no data set, or more than one
    info: DatasetInfo | None = None
    layout: Layout | None = None
    why: str = ""  # how it was told from other data sets in the same layout, if any
    findings: tuple[Finding, ...] = ()  # why there are no splits


class _Candidate(NamedTuple):
    """A data set that can be read, and whether its published counts and its name fit."""

    info: DatasetInfo
    layout: Layout
    splits: ReidSplits
    score: tuple[bool, bool]


def identify(root: Path) -> Identification:
    """Find out which data set a folder holds.

    Tries the layouts of all registered data sets, with their default options. If several fit, those
    that cannot be read drop out, an outer folder wins over the folders in it, and then the
    published counts and the name of the folder decide. If there is none, findings say what to do.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        finding = Finding("not_found", "error", f"{root} {what}", "Give a folder.")
        return Identification(findings=(finding,))
    infos = [info for name in list_datasets() if (info := dataset_info(name)).layouts]
    folders = [folder for level in levels_below(root) for folder in level]
    candidates: list[_Candidate] = []
    problems: dict[str, Finding] = {}  # by text: data sets in the same layout find the same
    for info in infos:
        # Before find_layout, which would list all folders again for each data set.
        if fitting(info.layouts, [*folders, root.resolve().parent]):
            found = _try(info, root, bool(fitting(info.layouts, folders)))
            if isinstance(found, Finding):
                problems[found.text] = found
            elif found is not None:
                candidates.append(found)
    roots = {candidate.splits.root for candidate in candidates}
    outer = [each for each in candidates if not roots & {*each.splits.root.parents}]
    if not outer:
        withdrawn = list(filter(None, map(_withdrawn, [root.resolve(), *folders])))
        findings = list(problems.values()) or withdrawn or _explain(root, infos, folders)
        return Identification(findings=tuple(findings))
    if len({each.splits.root for each in outer}) > 1:
        items = [{"folder": str(each.splits.root), "dataset": each.info.name} for each in outer]
        text, fix = f"{root} holds several data sets", "Give the folder of one of them."
        return Identification(findings=(Finding("several", "error", text, fix, items),))
    best, *others = sorted(outer, key=lambda candidate: candidate.score, reverse=True)
    why = ""
    if others:
        reason = "the published counts are its counts" if best.score[0] else ""
        reason = (reason or "the folder is called so") + ". Otherwise "
        if best.score == others[0].score:
            reason = "nothing tells them apart here, so this is a guess: "
        names = ", ".join(other.info.name for other in others)
        why = f"{names} would fit too; {reason}name one with --dataset"
    return Identification(best.splits, best.info, best.layout, why)


def _try(info: DatasetInfo, root: Path, is_below: bool) -> _Candidate | Finding | None:
    """Read a data set, or return what prevents that, if it is worth telling."""
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
    return _Candidate(info, layout, splits, (has_counts, has_name))


def _withdrawn(folder: Path) -> Finding | None:
    if (reason := why_withdrawn(folder.name)) is None:
        return None
    fix = "Take another data set, and delete this one."
    return Finding("withdrawn", "error", f"{folder}: {reason}.", fix)


def _explain(root: Path, infos: Iterable[DatasetInfo], folders: list[Path]) -> list[Finding]:
    """Say that no data set was found, and what may be the cause: archives, missing parts of one."""
    text = f"no data set was found in {root} or up to {SEARCH_DEPTH} folders below; it holds"
    fix = (
        f"Give the folder of one of the known data sets: {', '.join(i.name for i in infos)}. "
        "Images of your own can be read with --dataset folder (a folder for each person) or "
        "--dataset table (a table that says who is in which image)."
    )
    findings = [Finding("not_found", "error", f"{text} {listing(root)}", fix)]
    if items := [
        {"command": f"cd {shlex.quote(str(folder))} && {command} {shlex.quote(name)}"}
        for folder in folders
        for name in file_names(folder)
        for ending, command in _UNPACK.items()
        if name.lower().endswith(ending)
    ]:
        text = f"{len(items)} archives are there. Are they unpacked?"
        findings.append(Finding("packed", "note", text, "Unpack them by these commands.", items))
    info_of = {layout: info for info in infos for layout in info.layouts}
    for share, folder, layout, missing in nearest_layouts(info_of, folders)[:_MOST_HINTS]:
        if share <= _MOSTLY_MISSING:
            info = info_of[layout]
            text = f"{folder} could be {info.title} ({info.name}) in {layout.name} layout "
            text += f"({', '.join(layout.paths)}), but lacks {', '.join(missing)}"
            fix = "Unpack or download again what is missing."
            findings.append(Finding("incomplete", "note", text, fix))
    return findings
