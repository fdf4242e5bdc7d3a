"""Which data set lies in a folder, of all that are registered."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..layout import SEARCH_DEPTH, Layout, find_layout, plain_name
from ..registry import DatasetInfo, dataset_info, list_datasets, why_withdrawn
from ..splits import ReidSplits
from .finding import Finding
from .hints import find_hints
from .tree import fitting, levels_below


@dataclass(frozen=True)
class Identification:
    """What a folder is.

    Attributes:
        splits: The data set; None where the folder is none, or more than one.
        info: What is registered of it.
        layout: In which it lies there.
        why: How it was told from other data sets in the same layout; empty where there is none.
        findings: What is in the way, where there are no `splits`.
    """

    splits: ReidSplits | None = None
    info: DatasetInfo | None = None
    layout: Layout | None = None
    why: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """A data set in whose layout something lies there."""

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
    infos = [info for name in list_datasets() if (info := dataset_info(name)).layouts]
    if not root.is_dir():
        return Identification(findings=tuple(find_hints(root, infos)))
    folders = [folder for level in levels_below(root, SEARCH_DEPTH) for folder in level]
    candidates, findings = _find_candidates(root, infos, folders)
    if not candidates:
        findings = findings or [_withdrawn(folder) for folder in [root.resolve(), *folders]]
        known = [finding for finding in findings if finding]
        return Identification(findings=tuple(known or find_hints(root, infos)))
    readable = [candidate for candidate in candidates if candidate.splits is not None]
    if not readable:
        return Identification(findings=tuple(map(_unreadable, candidates)))
    outer = [
        candidate
        for candidate in readable
        if not any(other.root in candidate.root.parents for other in readable)
    ]
    if len({candidate.root for candidate in outer}) > 1:
        return Identification(findings=(_several(root, outer),))
    ranked = sorted(outer, key=lambda candidate: candidate.score, reverse=True)
    best = ranked[0]
    return Identification(best.splits, best.info, best.layout, _why(ranked))


def _find_candidates(
    root: Path, infos: list[DatasetInfo], folders: list[Path]
) -> tuple[list[_Candidate], list[Finding | None]]:
    """What can be there, and why something is not among it although its layout fits."""
    candidates: list[_Candidate] = []
    findings: list[Finding | None] = []
    for info in infos:
        # Before find_layout, which would list all folders anew for each data set.
        if not fitting(info, [*folders, root.resolve().parent]):
            continue
        try:
            found, layout = find_layout(info.name, root, info.layouts)
        except FileNotFoundError as error:
            if fitting(info, folders):
                text, mend = f"{error}", "Give the folder of one of them."
                findings.append(Finding("ambiguous", "error", text, mend))
            continue
        if withdrawn := _withdrawn(found.resolve()):
            findings.append(withdrawn)
        else:
            candidates.append(_read(info, found, layout))
    return candidates, _unlike(findings)


def _read(info: DatasetInfo, root: Path, layout: Layout) -> _Candidate:
    try:
        splits = info.factory(root)
    # Whatever it is that a reader stumbles over in the files of another data set.
    except Exception as error:
        return _Candidate(info, root, layout, None, f"{error}" or type(error).__name__)
    if splits.published is None:
        splits = replace(splits, published=info.published)
    return _Candidate(info, root, layout, splits, "")


def _withdrawn(folder: Path) -> Finding | None:
    reason = why_withdrawn(folder.name)
    if reason is None:
        return None
    mend = "Take another data set, and delete this one."
    return Finding("withdrawn", "error", f"{folder}: {reason}.", mend)


def _unreadable(candidate: _Candidate) -> Finding:
    return Finding(
        "cannot_read",
        "error",
        f"{candidate.root} has {candidate.info.title}'s layout, {candidate.layout}, but cannot be "
        f"read as that: {candidate.problem}",
        f"Mend what it says, then run this again with --dataset {candidate.info.name} and the "
        "options that it names; or is it another data set?",
    )


def _several(root: Path, candidates: list[_Candidate]) -> Finding:
    return Finding(
        "several",
        "error",
        f"{root} holds several data sets",
        "Give the folder of one of them.",
        [{"folder": str(each.root), "dataset": each.info.name} for each in candidates],
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


def _unlike(findings: list[Finding | None]) -> list[Finding | None]:
    """Each finding once: data sets in the same layout find the same."""
    texts: dict[str, Finding | None] = {}
    for finding in findings:
        if finding is not None:
            texts.setdefault(finding.text, finding)
    return list(texts.values())
