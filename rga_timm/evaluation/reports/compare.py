"""Reports side by side: what differs, by how much, and whether that could be chance.

Scores compare if they are of the same test: the same queries and gallery, by their fingerprint, and
the same distance, flip, re-ranking, cameras and kind of CMC. Image size, preprocessing, feature and
precision are the model's own: they differ from model to model, as its weights do. So is what was
trained on. Versions of software and names of data sets are shown, and do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rga_timm.evaluation.reports.card import card
from rga_timm.evaluation.reports.intervals import Difference, paired_difference
from rga_timm.evaluation.reports.markdown import markdown_table
from rga_timm.evaluation.reports.per_query import PerQuery, score_columns
from rga_timm.evaluation.reports.report import RANKS, Report
from rga_timm.evaluation.reports.tables import AP_NOTE, SCORE_LABELS, percent


class DifferentProtocolsError(ValueError):
    """Reports of different tests: their scores do not compare."""


class PairedScore(NamedTuple):
    """A score of two models on the same queries, and which is better in how many of them."""

    difference: Difference  # b - a
    a_better: int
    b_better: int
    same: int


def match_reports(files: Mapping[str, Sequence[Report]]) -> list[dict[str, Report]]:
    """Put the reports of several files side by side, those of the same data set together.

    Args:
        files: The reports of each file. Where every file has one, these belong together.

    Returns:
        Groups of one report from each file, in the order of the first file. What is in some files
        only is left out.

    Raises:
        ValueError: Fewer than two files, no data set that is in all of them, or one that is
            several times in a file.
    """
    if len(files) < 2:
        raise ValueError("two reports or more are needed for a comparison")
    if all(len(reports) == 1 for reports in files.values()):
        return [{file: reports[0] for file, reports in files.items()}]
    for file, reports in files.items():
        names = [report.dataset["name"] for report in reports]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{file} holds several reports of {twice[0]}: keep one")
    named = {file: {r.dataset["name"]: r for r in reports} for file, reports in files.items()}
    first, *others = named.values()
    common = [name for name in first if all(name in other for other in others)]
    if not common:
        sets = "; ".join(f"{file}: {', '.join(map(str, by))}" for file, by in named.items())
        raise ValueError(f"there is no data set that all files have a report of. {sets}")
    return [{file: by_name[name] for file, by_name in named.items()} for name in common]


def protocol_differences(a: Report, b: Report) -> dict[str, tuple[str, str]]:
    """What makes two reports' scores incomparable: what it is, and what each says."""
    ours, theirs = card(a), card(b)
    found = _differences(ours["test"], theirs["test"])
    if same_test_images(a, b):
        return found
    # Who is trained on is not the test's; of all images' fingerprint it is a part.
    sets = [dict(one["data set"]) for one in (ours, theirs)]
    for described in sets:
        described.pop("train", None)
        if all("test fingerprint" in one for one in sets):
            described.pop("fingerprint", None)
    images = _differences(*sets) or {"description": (str(dict(a.dataset)), str(dict(b.dataset)))}
    return {f"data set's {name}": pair for name, pair in images.items()} | found


def same_test_images(a: Report, b: Report) -> bool:
    """Whether the queries and galleries are the same, by their fingerprints.

    The fingerprint of the test images alone decides, where both have one. Reports from before it
    was recorded have only that of all images; without any the names and counts have to do.
    """
    parts_a, parts_b = (report.dataset.get("partitions", [report.dataset]) for report in (a, b))
    if len(parts_a) != len(parts_b):
        return False
    for one, other in zip(parts_a, parts_b, strict=True):
        for name in ("test_fingerprint", "fingerprint"):
            if name in one and name in other:
                if one[name] != other[name]:
                    return False
                break
        else:
            if dict(one) != dict(other):
                return False
    return True


def check_same_protocol(reports: Mapping[str, Report]) -> None:
    """Raise a DifferentProtocolsError, which says in what the tests differ, if they do."""
    (first, a), *others = reports.items()
    lines = [
        f"  {what}: {in_a} ({first}), {in_b} ({name})"
        for name, b in others
        for what, (in_a, in_b) in protocol_differences(a, b).items()
    ]
    if lines:
        raise DifferentProtocolsError(
            "the reports are of different protocols, and their scores do not compare:\n"
            + "\n".join(lines)
        )


def paired_scores(a: Report, b: Report) -> dict[str, PairedScore]:
    """Compare query by query.

    Returns:
        mAP, mAP_trapezoid, mINP and rank-1, rank-5 and rank-10. With single gallery shot in one of
        them the ranks are missing: there they are expectations, of which no query's is kept.

    Raises:
        ValueError: They cannot be compared so; the message says why, and what would help.
    """
    if not same_test_images(a, b):
        raise ValueError("the test images are not the same")
    if "partitions" in a.dataset:
        raise ValueError(
            "the mean over partitions has no queries of its own: test on one of them (split=0)"
        )
    if a.per_query is None or b.per_query is None:
        raise ValueError(
            "that takes the results of each query, which rga-timm evaluate --output writes "
            "unless it is told --no-per-query"
        )
    order = _same_order(_query_keys(a.per_query), _query_keys(b.per_query))
    single_shot = a.protocol.single_gallery_shot or b.protocol.single_gallery_shot
    ranks = () if single_shot else RANKS
    scores_a = score_columns(a.per_query, ranks)
    scores_b = {name: s[order] for name, s in score_columns(b.per_query, ranks).items()}
    pids = np.asarray(a.per_query["pid"])
    return {name: _pair(scores_a[name], scores_b[name], pids) for name in scores_a}


def format_comparison(reports: Mapping[str, Report], *, allow_different: bool = False) -> str:
    """Scores in percent side by side, differences to the first report, and what was tested how.

    Args:
        reports: At least two, by their names, such as the files that they are from.
        allow_different: Also of reports of different tests; the text then begins with a warning.

    Raises:
        DifferentProtocolsError: They are of different tests.
    """
    parts = []
    try:
        check_same_protocol(reports)
    except DifferentProtocolsError as error:
        if not allow_different:
            raise
        parts.append(f"WARNING: {error}")
    letters = [chr(ord("A") + i) if i < 26 else f"#{i + 1}" for i in range(len(reports))]
    legend = [
        f"{letter}: {report.model} ({name})"
        for letter, (name, report) in zip(letters, reports.items(), strict=True)
    ]
    parts.append("\n".join(legend))
    lettered = dict(zip(letters, reports.values(), strict=True))
    parts.append(_score_table(lettered))
    parts += _paired_tables(lettered)
    parts.append(_card_table(lettered))
    parts += [
        f"{letter} warns: {warning}"
        for letter, report in lettered.items()
        for warning in report.warnings
    ]
    return "\n\n".join(parts)


def _score_table(reports: Mapping[str, Report]) -> str:
    first, *others = reports
    rows = [["score (%)", *reports, *(f"{letter} - {first}" for letter in others)]]
    scores = [report.scores for report in reports.values()]
    for name, label in SCORE_LABELS.items():
        base, *rest = (of_report.get(name) for of_report in scores)
        changes = (None if base is None or score is None else score - base for score in rest)
        row = [label, *map(percent, (base, *rest)), *(percent(change, "+") for change in changes)]
        rows.append(row)
    return f"{markdown_table(rows, text=1)}\n\n{AP_NOTE}"


def _paired_tables(reports: Mapping[str, Report]) -> list[str]:
    """A table for each report but the first, or why there is none."""
    (first, a), *others = reports.items()
    texts = []
    for letter, b in others:
        try:
            paired = paired_scores(a, b)
        except ValueError as error:
            texts.append(f"No confidence interval of {letter} - {first}: {error}.")
            continue
        how = paired["mAP"].difference.interval
        header = ["by query", f"{letter} - {first}", f"{100 * how.level:g} % interval"]
        rows = [[*header, f"{letter} better", f"{first} better", "the same"]]
        for name, score in paired.items():
            value, interval = score.difference
            ends = f"{percent(interval.low, '+')} to {percent(interval.high, '+')}"
            counts = map(str, (score.b_better, score.a_better, score.same))
            rows.append([SCORE_LABELS[name], percent(value, "+"), ends, *counts])
        note = (
            f"Intervals over the {how.identities} people of the queries, drawn {how.resamples} "
            f"times with all their queries (bootstrap, seed {how.seed}). One that holds 0 says "
            "that the difference may be chance."
        )
        texts.append(f"{markdown_table(rows, text=1)}\n\n{note}")
    return texts


def _card_table(reports: Mapping[str, Report]) -> str:
    """What differs in the cards, and what is the same."""
    cards = [_flat(card(report)) for report in reports.values()]
    names = dict.fromkeys(name for one in cards for name in one)
    values = {name: [one.get(name, "-") for one in cards] for name in names}
    # What the scores' names mean is below their table already.
    values = {name: texts for name, texts in values.items() if not name.startswith("scores: m")}
    differing = {name: texts for name, texts in values.items() if len(set(texts)) > 1}
    same = [f"- {name}: {texts[0]}" for name, texts in values.items() if name not in differing]
    rows = [["different", *reports]]
    rows += [[name, *map(_shorten, texts)] for name, texts in differing.items()]
    table = markdown_table(rows, text=len(rows[0])) if differing else "Nothing else is different."
    return table + "\n\nthe same in all:\n" + "\n".join(same)


def _shorten(text: str) -> str:
    """The beginning of a hash, which is enough to tell two apart."""
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{64}", text) else text


def _pair(a: np.ndarray, b: np.ndarray, pids: np.ndarray) -> PairedScore:
    difference = paired_difference(a, b, pids)
    a_better, b_better, same = int((a > b).sum()), int((b > a).sum()), int((a == b).sum())
    return PairedScore(difference, a_better, b_better, same)


def _same_order(keys_a: Sequence[Any], keys_b: Sequence[Any]) -> np.ndarray:
    """Where each query of a is in b."""
    if keys_a == keys_b:  # also where two queries are cut out of one image
        return np.arange(len(keys_a))
    place = {key: i for i, key in enumerate(keys_b)}
    if not len(keys_a) == len(keys_b) == len(place) or set(keys_a) != place.keys():
        raise ValueError("the queries are not the same")
    return np.array([place[key] for key in keys_a])


def _query_keys(per_query: PerQuery) -> list[tuple[Any, ...]]:
    columns: Mapping[str, Any] = per_query
    names = [name for name in ("path", "pid", "camid", "tracklet") if name in columns]
    return list(zip(*(columns[name] for name in names), strict=True))


def _differences(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Of the lines that both have, those that are not the same."""
    return {name: (a[name], b[name]) for name in a if name in b and a[name] != b[name]}


def _flat(sections: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {
        f"{section}: {name}": text
        for section, items in sections.items()
        for name, text in items.items()
    }
