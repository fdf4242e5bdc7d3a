"""Reports as text: tables, lines below them, and warnings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from rga_timm.evaluation.reports.markdown import markdown_table
from rga_timm.evaluation.reports.report import AP_CONVENTIONS, RANKS, Report

_logger = logging.getLogger(__name__)
SCORE_LABELS = {
    "mAP": "mAP",
    "mAP_trapezoid": "mAP (trapezoid)",
    "mINP": "mINP",
    **{f"rank-{k}": f"rank-{k}" for k in RANKS},
}
AP_NOTE = "mAP: {mAP}; mAP (trapezoid): {mAP_trapezoid}.".format(**AP_CONVENTIONS)


def percent(score: float | None, sign: str = "") -> str:
    """A score as `81.5`, a difference (with the sign `+`) as `+1.5`; `-` for none."""
    return "-" if score is None else f"{100 * score:{sign}.1f}"


def format_table(reports: Sequence[Report]) -> str:
    """A Markdown table, a row a report, readable as plain text. Scores are percent.

    Args:
        reports: At least one.

    Returns:
        The table, and a line that says what its columns are.
    """
    rows = [["model", "data set", "test", *SCORE_LABELS.values()]]
    for report in reports:
        names = [report.model, str(report.dataset["name"]), report.protocol.summary()]
        rows.append([*names, *(percent(report.scores.get(name)) for name in SCORE_LABELS)])
    return f"{markdown_table(rows, text=3)}\n\nAll scores in percent. {AP_NOTE}"


def format_intervals(reports: Sequence[Report]) -> str:
    """A line for each report that has confidence intervals, in percent; empty without any."""
    lines = []
    for report in reports:
        if intervals := report.metrics.get("intervals"):
            ends = {"mAP": intervals.get("mAP"), "rank-1": intervals.get("rank-1")}
            texts = [
                f"{score} {percent(pair[0])} to {percent(pair[1])}"
                for score, pair in ends.items()
                if pair
            ]
            lines.append(
                f"{report.dataset['name']}: {100 * intervals['level']:g} % interval over its "
                f"{intervals['identities']} people: {', '.join(texts)}"
            )
    return "\n".join(lines)


def format_verification(reports: Sequence[Report]) -> str:
    """A line for each threshold that was asked for; empty without any."""
    return "\n".join(
        f"{report.dataset['name']}: {point['tpr']:.2%} of the pairs of one person are nearer than "
        f"{point['threshold']:.4f}, and {point['fpr']:.3g} of those of two people "
        f"(at most {point['target_fpr']:g} asked for)"
        for report in reports
        for point in report.metrics.get("verification", {}).get("points", ())
    )


def log_warnings(reports: Iterable[Report]) -> None:
    """Log the warnings of some reports, each with the name of its data set."""
    for report in reports:
        # Of the mean over partitions, each warning begins with the name of its partition.
        prefix = "" if "partitions" in report.dataset else f"{report.dataset['name']}: "
        for warning in report.warnings:
            _logger.warning("%s%s", prefix, warning)
