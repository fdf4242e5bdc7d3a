"""From features to a report: the scores, and all that goes with them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from rga_timm.evaluation.embedding.embed import Embeddings
from rga_timm.evaluation.ranking.evaluate import ReidResult, evaluate
from rga_timm.evaluation.ranking.expansion import pool_queries
from rga_timm.evaluation.ranking.verification import verify
from rga_timm.evaluation.reports.per_query import per_query_results
from rga_timm.evaluation.reports.report import Protocol, Report

_logger = logging.getLogger(__name__)


def report_features(
    query: Embeddings,
    gallery: Embeddings,
    protocol: Protocol,
    *,
    model: str,
    dataset: Mapping[str, Any],
    query_ids: Mapping[str, Sequence[Any]] | None = None,
    verify_at: Sequence[float] = (),
    warnings: Sequence[str] = (),
    log_warnings: bool = True,
    device: torch.device | str | None = None,
    distributed: bool = False,
    progress: bool = False,
    **attributes: Any,
) -> Report:
    """Rank what is embedded, and report it.

    Args:
        query: features and ids of the query images or tracklets.
        gallery: the same of the gallery.
        protocol: how to test.
        model: its name, for the report.
        dataset: what the data set says of itself.
        query_ids: which queries there are, as columns: how each fared is kept then.
        verify_at: false positive rates at which pairs are verified too.
        warnings: what `diagnose` found.
        log_warnings: log them too.
        device: as for `evaluate`.
        distributed: as for `evaluate`.
        progress: show progress bars.
        attributes: further attributes of the report.

    Returns:
        The report, with the metric `verification` where it was asked for: a dict of each
        `OperatingPoint`, and the numbers of pairs.

    Raises:
        ValueError: as `evaluate` and `verify`.
    """
    for warning in warnings if log_warnings else ():
        _logger.warning("%s: %s", dataset["name"], warning)
    queries, first = queries_of(protocol, query)
    result = evaluate_features(
        queries, gallery, protocol, device=device, distributed=distributed, progress=progress
    )
    per_query = None
    if query_ids is not None:
        columns = {name: [column[i] for i in first] for name, column in query_ids.items()}
        per_query = per_query_results(result, columns)
    metrics: dict[str, Any] = {}
    if verify_at:
        verification = verify(
            queries.features,
            queries.pids,
            queries.camids,
            gallery.features,
            gallery.pids,
            gallery.camids,
            fprs=verify_at,
            metric=protocol.metric,
            rerank=protocol.rerank,
            expand=protocol.expansion,
            device=device,
            distributed=distributed,
            progress=progress,
        )
        metrics["verification"] = {
            **asdict(verification),
            "points": [asdict(point) for point in verification.points],
        }
    return Report.of(
        result,
        model=model,
        dataset=dataset,
        protocol=protocol,
        query_pids=queries.pids,
        per_query=per_query,
        warnings=warnings,
        metrics=metrics,
        **attributes,
    )


def queries_of(protocol: Protocol, images: Embeddings) -> tuple[Embeddings, list[int]]:
    """The queries that a protocol makes of the query images.

    Args:
        protocol: whether it is multi-query.
        images: features and ids of the images or tracklets.

    Returns:
        One query each; or for multi-query one for all images of a person under a camera. And of
        each query the index of its first image.
    """
    if not protocol.multi_query:
        return images, [*range(len(images))]
    features, pids, camids, first = pool_queries(images.features, images.pids, images.camids)
    return Embeddings(features, pids, camids), first.tolist()


def evaluate_features(
    query: Embeddings,
    gallery: Embeddings,
    protocol: Protocol,
    *,
    device: torch.device | str | None = None,
    distributed: bool = False,
    progress: bool = False,
) -> ReidResult:
    """Rank what is embedded, as a protocol says.

    Args:
        query: features and ids of the queries (of `queries_of`, for multi-query).
        gallery: the same of the gallery.
        protocol: distance, query expansion, re-ranking and the kind of the CMC.
        device: where the ranking is computed; as `evaluate`.
        distributed: as for `evaluate`.
        progress: show progress bars.

    Returns:
        The scores.

    Raises:
        ValueError: as `evaluate`.
    """
    return evaluate(
        query.features,
        query.pids,
        query.camids,
        gallery.features,
        gallery.pids,
        gallery.camids,
        metric=protocol.metric,
        rerank=protocol.rerank,
        expand=protocol.expansion,
        single_gallery_shot=protocol.single_gallery_shot,
        device=device,
        distributed=distributed,
        progress=progress,
    )
