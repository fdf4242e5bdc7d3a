"""Which data set is in a folder, of all that are registered."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

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


@dataclass(frozen=True)
class _Candidate:
    """A data set whose layout is there."""

    info: DatasetInfo
    root: Path
    layout: Layout
    splits: ReidSplits | None  # None: it cannot be read
    problem: str

    @property
    def agreement(self) -> float:
        """The share of the published counts that are so here."""
        if self.splits is None:
            return 0.0
        pairs = [
            (ours, theirs)
            for split, published in (self.splits.published or {}).items()
            for ours, theirs in zip(self.splits.counts[split], published, strict=True)
            if theirs is not None
        ]
        return sum(ours == theirs for ours, theirs in pairs) / max(len(pairs), 1)

    @property
    def is_called_so(self) -> bool:
        """Whether its folder is called like the data set."""
        return plain_name(self.info.name) in plain_name(self.root.resolve().name)

    @property
    def score(self) -> tuple[bool, bool, float]:
        """The larger, the likelier. A name says less than all counts, and more than some."""
        return self.agreement == 1, self.is_called_so, self.agreement


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
    candidates, findings = _find_candidates(root, infos, folders)
    if not candidates:
        findings = findings or list(filter(None, map(_withdrawn, [root.resolve(), *folders])))
        return _nothing(*(findings or _explain(root, infos, folders)))
    readable = [candidate for candidate in candidates if candidate.splits is not None]
    if not readable:
        return _nothing(*map(_unreadable, candidates))
    outer = [
        candidate
        for candidate in readable
        if not any(other.root in candidate.root.parents for other in readable)
    ]
    if len({candidate.root for candidate in outer}) > 1:
        items = [{"folder": str(each.root), "dataset": each.info.name} for each in outer]
        text, fix = f"{root} holds several data sets", "Give the folder of one of them."
        return _nothing(Finding("several", "error", text, fix, items))
    ranked = sorted(outer, key=lambda candidate: candidate.score, reverse=True)
    best = ranked[0]
    return Identification(best.splits, best.info, best.layout, _why(ranked))


def _nothing(*findings: Finding) -> Identification:
    return Identification(findings=findings)


def _find_candidates(
    root: Path, infos: list[DatasetInfo], folders: list[Path]
) -> tuple[list[_Candidate], list[Finding]]:
    """What can be there, and why something is not among it although its layout fits."""
    candidates: list[_Candidate] = []
    findings: dict[str, Finding] = {}  # by text: data sets in the same layout find the same
    for info in infos:
        # Before find_layout, which would list all folders anew for each data set.
        if not fitting(info.layouts, [*folders, root.resolve().parent]):
            continue
        try:
            found, layout = find_layout(info.name, root, info.layouts)
        except FileNotFoundError as error:
            if fitting(info.layouts, folders):
                text, fix = f"{error}", "Give the folder of one of them."
                findings[text] = Finding("ambiguous", "error", text, fix)
            continue
        if withdrawn := _withdrawn(found.resolve()):
            findings[withdrawn.text] = withdrawn
        else:
            candidates.append(_read(info, found, layout))
    return candidates, list(findings.values())


def _read(info: DatasetInfo, root: Path, layout: Layout) -> _Candidate:
    try:
        splits = info.factory(root)
    except Exception as error:  # a reader may fail in any way on the files of another data set
        return _Candidate(info, root, layout, None, f"{error}" or type(error).__name__)
    if splits.published is None:
        splits = replace(splits, published=info.published)
    return _Candidate(info, root, layout, splits, "")


def _withdrawn(folder: Path) -> Finding | None:
    reason = why_withdrawn(folder.name)
    fix = "Take another data set, and delete this one."
    return reason and Finding("withdrawn", "error", f"{folder}: {reason}.", fix) or None


def _unreadable(candidate: _Candidate) -> Finding:
    return Finding(
        "cannot_read",
        "error",
        f"{candidate.root} has {candidate.info.title}'s layout, {candidate.layout}, but cannot be "
        f"read as that: {candidate.problem}",
        f"Fix that, then run this again with --dataset {candidate.info.name} and the options that "
        "it names; or is it another data set?",
    )


def _why(ranked: list[_Candidate]) -> str:
    if len(ranked) == 1:
        return ""
    best, second = ranked[:2]
    others = ", ".join(candidate.info.name for candidate in ranked[1:])
    if best.score == second.score:
        reason = "nothing tells them apart here, so this is a guess: "
    elif best.agreement == 1:
        reason = "the published counts are its counts. Otherwise "
    elif best.is_called_so:
        reason = "the folder is called so. Otherwise "
    else:
        reason = "its published counts come nearest. Otherwise "
    return f"{others} would fit too; {reason}name one with --dataset"


def _explain(root: Path, infos: Iterable[DatasetInfo], folders: list[Path]) -> list[Finding]:
    """That no data set was found, and what may be in the way: archives, missing parts of one."""
    text = (
        f"no data set was found in {root} or up to {SEARCH_DEPTH} folders below; it holds "
        f"{listing(root)}"
    )
    fix = (
        f"Give the folder of one of the known data sets: {', '.join(i.name for i in infos)}. Images "
        "of your own can be read with --dataset folder (a folder for each person) or --dataset "
        "table (a table that says who is in which image)."
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
