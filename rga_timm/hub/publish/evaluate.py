"""The evaluation of a checkpoint that is to be published, as it will be stored."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from timm.data import resolve_data_config
from torch import nn

from rga_timm.data import ReidSplits
from rga_timm.evaluation import Protocol, Report, Reranking, evaluate_dataset, evaluate_protocols
from rga_timm.hub.publish.folder import halve

# By so much may storing in float16 change any score: 0.05 points.
MAX_CHANGE = 0.0005


def evaluate_to_publish(
    model: nn.Module,
    test_sets: Sequence[Sequence[ReidSplits]],
    *,
    name: str,
    precision: str,
    **options: Any,
) -> tuple[list[Report], bool, str]:
    """Test a model as it will be stored: without and with flip, without and with re-ranking.

    Args:
        model: In float32; afterwards it has the weights that are stored.
        test_sets: Data sets, each as its partitions.
        name: Of the checkpoint.
        precision: `float16`, `float32`, or `auto`: float16 if no score changes by more than
            `MAX_CHANGE`.
        **options: Of `evaluate_dataset`.

    Returns:
        The reports, of each data set the plain one first; whether to store in float16; and a
        sentence on what that changes.
    """
    protocol = Protocol.of_data_config(resolve_data_config({}, model=model))
    options = {"name": name, "log_warnings": False, **options}
    if precision == "float32":
        return _flat(_evaluate(model, test_sets, protocol, options)), False, "Stored in float32."
    full = copy.deepcopy(model)
    try:
        model.load_state_dict(halve(model.state_dict()))
    except ValueError as error:  # a weight beyond float16's range
        if precision == "float16":
            raise
        reports = _evaluate(model, test_sets, protocol, options)
        return _flat(reports), False, f"Stored in float32: {error}."
    # All that will be reported first: it mostly is what is published, and is not computed twice.
    reports = _evaluate(model, test_sets, protocol, options)
    rounded = [plain.metrics for plain, *_ in reports]
    before = [evaluate_dataset(full, parts, protocol, **options).metrics for parts in test_sets]
    change = max(map(largest_change, before, rounded))
    if precision == "float16" or change <= MAX_CHANGE:
        note = f"Stored in float16: that changes no score by more than {100 * change:.3f} points."
        return _flat(reports), True, note
    model.load_state_dict(full.state_dict())
    note = f"Stored in float32: in float16 a score changes by {100 * change:.3f} points."
    return _flat(_evaluate(model, test_sets, protocol, options)), False, note


def _evaluate(
    model: nn.Module,
    test_sets: Sequence[Sequence[ReidSplits]],
    protocol: Protocol,
    options: Mapping[str, Any],
) -> list[list[Report]]:
    """The reports of all tests that are published, for each data set, the plain one first."""
    protocols = [protocol, replace(protocol, flip=True)]
    reports = []
    for parts in test_sets:
        images = min(len(part.query) + len(part.gallery) for part in parts)
        rerank = Reranking()
        reranked = [replace(p, rerank=rerank) for p in protocols] if images > rerank.k1 else []
        reports.append(evaluate_protocols(model, parts, protocols + reranked, **options))
    return reports


def _flat(reports: Sequence[Sequence[Report]]) -> list[Report]:
    """The reports of all data sets in a row."""
    return [report for of_set in reports for report in of_set]


def largest_change(metrics: Mapping[str, Any], others: Mapping[str, Any]) -> float:
    """The largest difference of a score, mAP of both kinds, mINP or CMC, as a fraction."""
    scores = [[m["mAP"], m["mAP_trapezoid"], m["mINP"], *m["cmc"][:10]] for m in (metrics, others)]
    return max(abs(a - b) for a, b in zip(*scores, strict=True))
