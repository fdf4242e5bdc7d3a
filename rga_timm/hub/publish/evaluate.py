"""Evaluate a checkpoint as it will be stored."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, product
from typing import Any

from timm.data import resolve_data_config
from torch import nn

from rga_timm.data import ReidSplits
from rga_timm.evaluation import (
    Compute,
    ModelRecord,
    Protocol,
    Report,
    Reranking,
    combine_partitions,
    evaluate_dataset,
    report_embeddings,
)
from rga_timm.evaluation.dataset import embed_queries_and_gallery
from rga_timm.hub.publish.folder import halve

# How much storing in float16 may change any score: 0.05 points.
MAX_CHANGE = 0.0005

TestSets = Sequence[Sequence[ReidSplits]]  # data sets, each as its partitions


def evaluate_to_publish(
    model: nn.Module, test_sets: TestSets, record: ModelRecord, *, precision: str, compute: Compute
) -> tuple[list[Report], bool, str]:
    """Test a model as it will be stored: without and with flip, without and with re-ranking.

    ``precision`` is ``float16``, ``float32``, or ``auto``: float16 if no score changes by more than
    ``MAX_CHANGE``. Afterwards the model, in float32, has the values that are stored.

    Returns:
        The reports, for each data set the plain one first; whether to store in float16; and a
        sentence on what that changes.
    """
    protocol = Protocol.of_data_config(resolve_data_config({}, model=model))
    note = "Stored in float32."
    if precision != "float32":
        full = copy.deepcopy(model)
        try:
            model.load_state_dict(halve(model.state_dict()))
        except ValueError as error:  # a weight beyond float16's range
            if precision == "float16":
                raise
            note = f"Stored in float32: {error}."
        else:
            # Test in float16 first: these reports are what is published in most cases.
            reports = _evaluate(model, test_sets, protocol, record, compute)
            before = [
                evaluate_dataset(full, parts, protocol, record, compute=compute).metrics
                for parts in test_sets
            ]
            change = max(map(largest_change, before, (plain.metrics for plain, *_ in reports)))
            points = f"{100 * change:.3f} points"
            if precision == "float16" or change <= MAX_CHANGE:
                note = f"Stored in float16: that changes no score by more than {points}."
                return list(chain(*reports)), True, note
            model.load_state_dict(full.state_dict())
            note = f"Stored in float32: in float16 a score changes by {points}."
    return list(chain(*_evaluate(model, test_sets, protocol, record, compute))), False, note


def _evaluate(
    model: nn.Module, test_sets: TestSets, protocol: Protocol, record: ModelRecord, compute: Compute
) -> list[list[Report]]:
    """The reports to publish of each data set, the plain one first."""
    record = record.with_hash_of(model)
    reports = []
    for parts in test_sets:
        images = min(len(part.query) + len(part.gallery) for part in parts)
        reranks = [None, Reranking()] if images > Reranking().k1 else [None]
        # For each test, a report of each partition; images are embedded once for all rankings.
        tests: dict[tuple[Reranking | None, bool], list[Report]]
        tests = {(rerank, flip): [] for rerank in reranks for flip in (False, True)}
        for part, flip in product(parts, (False, True)):
            how = replace(protocol, flip=flip)
            embedded = embed_queries_and_gallery(model, part, how, compute)
            for rerank in reranks:
                test = replace(how, rerank=rerank)
                report = report_embeddings(*embedded, part, test, record, compute=compute)
                tests[rerank, flip].append(report)
        reports.append([combine_partitions(of_parts) for of_parts in tests.values()])
    return reports


def largest_change(metrics: Mapping[str, Any], others: Mapping[str, Any]) -> float:
    """The largest difference of mAP (both kinds), mINP or CMC, as a fraction."""
    scores = [[m["mAP"], m["mAP_trapezoid"], m["mINP"], *m["cmc"][:10]] for m in (metrics, others)]
    return max(abs(a - b) for a, b in zip(*scores, strict=True))
