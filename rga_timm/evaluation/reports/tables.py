"""Reports as text: tables, lines below them, and warnings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

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
    """Format a score as `81.5`, a difference (with the sign `+`) as `+1.5`; None as `-`."""
    return "-" if score is None else f"{100 * score:{sign}.1f}"


def markdown_table(rows: Sequence[Sequence[str]], text: int) -> str:
    """Format a header and rows: the first `text` columns to the left, the others to the right."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * w if i < text else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = []
    for row in [rows[0], rule, *rows[1:]]:
        cells = [f"{c:<{w}}" for c, w in zip(row[:text], widths[:text], strict=True)]
        cells += [f"{c:>{w}}" for c, w in zip(row[text:], widths[text:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def format_table(reports: Sequence[Report]) -> str:
    """Format a Markdown table with a row for each report, in percent, and a line below it."""
    rows = [["model", "data set", "test", *SCORE_LABELS.values()]]
    for report in reports:
        names = [report.model, str(report.dataset["name"]), report.protocol.summary()]
        rows.append([*names, *(percent(report.scores.get(name)) for name in SCORE_LABELS)])
    return f"{markdown_table(rows, text=3)}\n\nAll scores in percent. {AP_NOTE}"


def format_intervals(reports: Sequence[Report]) -> str:
    """Format a line for each report that has confidence intervals, in percent."""
    lines = []
    for report in reports:
        if found := report.metrics.get("intervals"):
            pairs = (("mAP", found.get("mAP")), ("rank-1", found.get("rank-1")))
            texts = [f"{name} {percent(p[0])} to {percent(p[1])}" for name, p in pairs if p]
            lines.append(
                f"{report.dataset['name']}: {100 * found['level']:g} % interval over its "
                f"{found['identities']} people: {', '.join(texts)}"
            )
    return "\n".join(lines)


def format_verification(reports: Sequence[Report]) -> str:
    """Format a line for each threshold of the reports' verification."""
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
        # With partitions, each warning already begins with the name of its partition.
        prefix = "" if "partitions" in report.dataset else f"{report.dataset['name']}: "
        for warning in report.warnings:
            _logger.warning("%s%s", prefix, warning)
