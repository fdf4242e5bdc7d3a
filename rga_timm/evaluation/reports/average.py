"""Average the reports of the partitions of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rga_timm.evaluation.reports.report import Metrics, Report


def average_reports(reports: Sequence[Report]) -> Report:
    """Average the reports of the partitions of a data set, with equal weights.

    The reports are of the same model (by name; each partition may have its own weights), under the
    same protocol. Scores are means, `num_queries` and `num_valid_queries` are sums. The data set is
    named as in `viper:split=all`, with the descriptions of all partitions as `partitions`.
    Different checkpoints or versions of software are joined with commas. There are no confidence
    intervals and no scores of single queries, because partitions share people.

    Raises:
        ValueError: No report, a partition twice, or reports that differ in model, protocol, data
            set, its other options, or the length of the CMC curve.
    """
    if not reports:
        raise ValueError("there are no reports to average")
    names = [str(report.dataset["name"]) for report in reports]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two reports are of {twice[0]}: each partition counts once")
    return Report(
        model=_same("model", [report.model for report in reports]),
        dataset={
            "name": _same("data set", [*map(name_of_all_partitions, names)]),
            "partitions": [dict(report.dataset) for report in reports],
        },
        protocol=_same("protocol", [report.protocol for report in reports]),
        metrics=_average([report.metrics for report in reports]),
        checkpoint=_join([report.checkpoint for report in reports]),
        weights=_join([report.weights for report in reports]),
        warnings=[
            f"{report.dataset['name']}: {warning}"
            for report in reports
            for warning in report.warnings
        ],
        software={
            name: str(_join([report.software.get(name) for report in reports]))
            for name in dict.fromkeys(name for report in reports for name in report.software)
        },
    )


def combine_partitions(reports: Sequence[Report]) -> Report:
    """Return the only report, or the mean of several partitions."""
    return reports[0] if len(reports) == 1 else average_reports(reports)


def name_of_all_partitions(name: str) -> str:
    """Name all partitions of a data set: `viper:split=all` for `viper:split=3` or `viper`."""
    dataset, _, options = name.partition(":")
    kept = [option for option in options.split(",") if option and not option.startswith("split=")]
    return f"{dataset}:{','.join(sorted([*kept, 'split=all']))}"


def _average(metrics: Sequence[Metrics]) -> Metrics:
    _same("CMC curves' length", [len(one["cmc"]) for one in metrics])
    return {
        "mAP": float(np.mean([one["mAP"] for one in metrics])),
        "mAP_trapezoid": float(np.mean([one["mAP_trapezoid"] for one in metrics])),
        "mINP": float(np.mean([one["mINP"] for one in metrics])),
        "cmc": np.mean([one["cmc"] for one in metrics], axis=0).tolist(),
        "num_queries": sum(one["num_queries"] for one in metrics),
        "num_valid_queries": sum(one["num_valid_queries"] for one in metrics),
    }


def _same(what: str, values: Sequence[Any]) -> Any:
    if other := [value for value in values if value != values[0]]:
        raise ValueError(f"the reports differ in {what}: {values[0]} and {other[0]}")
    return values[0]


def _join(texts: Sequence[str | None]) -> str | None:
    """Join the different ones; None if there are none."""
    return ", ".join(dict.fromkeys(filter(None, texts))) or None
