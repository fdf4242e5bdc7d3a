"""Compare reports: what differs, by how much, and whether that could be chance.

Scores are comparable if they are of the same test: the same queries and gallery, by their
fingerprint, and the same distance, flip, re-ranking, cameras and kind of CMC. Image size,
preprocessing, feature, precision and training data belong to the model, and may differ. Versions of
software and names of data sets are shown, and do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rga_timm.evaluation.reports.card import card
from rga_timm.evaluation.reports.intervals import Difference, paired_difference
from rga_timm.evaluation.reports.per_query import PerQuery, score_columns
from rga_timm.evaluation.reports.report import RANKS, Report
from rga_timm.evaluation.reports.tables import AP_NOTE, SCORE_LABELS, markdown_table, percent


class DifferentProtocolsError(ValueError):
    """The reports are of different tests, so their scores are not comparable."""


class PairedScore(NamedTuple):
    """The difference of a score on the same queries, and for how many each model is better."""

    difference: Difference  # b - a
    a_better: int
    b_better: int
    same: int


def match_reports(files: Mapping[str, Sequence[Report]]) -> list[dict[str, Report]]:
    """Group the reports of several files by data set, in the order of the first file.

    If every file has one report, these are the only group. Data sets that are not in all files are
    left out.

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
    """Return what makes two reports' scores incomparable, with the value of each."""
    card_a, card_b = card(a), card(b)
    found = _differences(card_a["test"], card_b["test"])
    if same_test_images(a, b):
        return found
    # The training images belong to the model; they are part of the fingerprint of all images.
    images = _differences(card_a["data set"], card_b["data set"])
    images.pop("train", None)
    if all("test fingerprint" in one["data set"] for one in (card_a, card_b)):
        images.pop("fingerprint", None)
    images = images or {"description": (str(dict(a.dataset)), str(dict(b.dataset)))}
    return {f"data set's {name}": pair for name, pair in images.items()} | found


def same_test_images(a: Report, b: Report) -> bool:
    """Return whether the queries and galleries are the same, by their fingerprints.

    Old reports have the fingerprint of all images only; without any, names and counts are compared.
    """

    def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        for name in ("test_fingerprint", "fingerprint"):
            if name in one and name in other:
                return bool(one[name] == other[name])
        return dict(one) == dict(other)

    parts_a, parts_b = (report.dataset.get("partitions", [report.dataset]) for report in (a, b))
    return len(parts_a) == len(parts_b) and all(map(same, parts_a, parts_b))


def check_same_protocol(reports: Mapping[str, Report]) -> None:
    """Raise a DifferentProtocolsError, which lists the differences, if the tests differ."""
    (first, a), *others = reports.items()
    lines = [
        f"  {what}: {in_a} ({first}), {in_b} ({name})"
        for name, b in others
        for what, (in_a, in_b) in protocol_differences(a, b).items()
    ]
    if lines:
        what = "the reports are of different protocols, and their scores do not compare:"
        raise DifferentProtocolsError("\n".join([what, *lines]))


def paired_scores(a: Report, b: Report) -> dict[str, PairedScore]:
    """Compare query by query: mAP, mAP_trapezoid, mINP and rank-1, rank-5 and rank-10.

    There are no ranks with single gallery shot, where they are not kept for each query. Raises a
    ValueError with the reason if the reports cannot be compared so.
    """
    if not same_test_images(a, b):
        raise ValueError("the test images are not the same")
    if "partitions" in a.dataset:
        raise ValueError(
            "the mean over partitions has no queries of its own: test on one of them (split=0)"
        )
    if a.per_query is None or b.per_query is None:
        raise ValueError(
            "that takes the results of each query, which rga-timm evaluate --output writes without "
            "--no-per-query"
        )
    order = _same_order(_query_keys(a.per_query), _query_keys(b.per_query))
    single_shot = a.protocol.single_gallery_shot or b.protocol.single_gallery_shot
    ranks = () if single_shot else RANKS
    scores_b = score_columns(b.per_query, ranks)
    pids = np.asarray(a.per_query["pid"])
    paired = {}
    for name, of_a in score_columns(a.per_query, ranks).items():
        of_b = scores_b[name][order]
        counts = (int(np.sum(which)) for which in (of_a > of_b, of_b > of_a, of_a == of_b))
        paired[name] = PairedScore(paired_difference(of_a, of_b, pids), *counts)
    return paired


def format_comparison(reports: Mapping[str, Report], *, allow_different: bool = False) -> str:
    """Format scores in percent, differences to the first report, and how it was tested.

    `reports` are at least two, by their names, such as their files. Different tests raise a
    DifferentProtocolsError, or with `allow_different` are compared after a warning.
    """
    parts = []
    try:
        check_same_protocol(reports)
    except DifferentProtocolsError as error:
        if not allow_different:
            raise
        parts.append(f"WARNING: {error}")
    letters = [chr(ord("A") + i) if i < 26 else f"#{i + 1}" for i in range(len(reports))]
    lettered = dict(zip(letters, reports.values(), strict=True))
    names = zip(lettered.items(), reports, strict=True)
    parts.append("\n".join(f"{letter}: {r.model} ({name})" for (letter, r), name in names))
    parts += [_score_table(lettered), *_paired_tables(lettered), _card_table(lettered)]
    parts += [f"{letter} warns: {text}" for letter, r in lettered.items() for text in r.warnings]
    return "\n\n".join(parts)


def _score_table(reports: Mapping[str, Report]) -> str:
    first, *others = reports
    rows = [["score (%)", *reports, *(f"{letter} - {first}" for letter in others)]]
    scores = [report.scores for report in reports.values()]
    for name, label in SCORE_LABELS.items():
        base, *rest = (of_report.get(name) for of_report in scores)
        changes = (None if base is None or score is None else score - base for score in rest)
        texts = (percent(change, "+") for change in changes)
        rows.append([label, *map(percent, (base, *rest)), *texts])
    return f"{markdown_table(rows, text=1)}\n\n{AP_NOTE}"


def _paired_tables(reports: Mapping[str, Report]) -> list[str]:
    """Make a table for each report but the first, or say why there is none."""
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
    """List what differs in the cards, and what is the same."""
    cards = [
        {f"{section}: {name}": text for section, of in card(r).items() for name, text in of.items()}
        for r in reports.values()
    ]
    all_names = dict.fromkeys(name for one in cards for name in one)
    # The names of the scores are explained below their table.
    names = [name for name in all_names if not name.startswith("scores: m")]
    values = {name: [one.get(name, "-") for one in cards] for name in names}
    differing = {name: texts for name, texts in values.items() if len(set(texts)) > 1}
    same = [f"- {name}: {texts[0]}" for name, texts in values.items() if name not in differing]
    rows = [["different", *reports]]
    rows += [[name, *map(_shorten, texts)] for name, texts in differing.items()]
    table = markdown_table(rows, text=len(rows[0])) if differing else "Nothing else is different."
    return table + "\n\nthe same in all:\n" + "\n".join(same)


def _shorten(text: str) -> str:
    """Cut a hash to its beginning."""
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{64}", text) else text


def _same_order(keys_a: Sequence[Any], keys_b: Sequence[Any]) -> np.ndarray:
    """Return where each query of a is in b."""
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
    return {name: (a[name], b[name]) for name in a if name in b and a[name] != b[name]}
