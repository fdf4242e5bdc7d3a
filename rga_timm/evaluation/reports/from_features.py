"""From features to a report: the scores, and all that goes with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rga_timm.data import ReidSplits
from rga_timm.evaluation.compute import Compute
from rga_timm.evaluation.embedding.embed import Embeddings
from rga_timm.evaluation.protocol import Protocol
from rga_timm.evaluation.ranking.evaluate import rank_embeddings
from rga_timm.evaluation.ranking.expansion import pool_queries
from rga_timm.evaluation.ranking.verification import verify_embeddings
from rga_timm.evaluation.record import ModelRecord
from rga_timm.evaluation.reports.diagnosis import diagnose
from rga_timm.evaluation.reports.per_query import per_query_results, query_ids
from rga_timm.evaluation.reports.report import Report


def report_embeddings(
    query: Embeddings,
    gallery: Embeddings,
    splits: ReidSplits,
    protocol: Protocol,
    record: ModelRecord,
    *,
    compute: Compute = Compute(),
    per_query: bool = False,
    verify_at: Sequence[float] = (),
) -> Report:
    """Rank the embedded queries and gallery of a data set, and report it with its warnings.

    So several rankings can share the same embeddings; `evaluate_dataset` says what the arguments
    are. The record is to have the hash of the weights already.
    """
    warnings = diagnose(
        splits, query, gallery, metric=protocol.metric, trained_on=record.trained_on
    )
    return report_features(
        query,
        gallery,
        replace(
            protocol, cameras=splits.has_cameras, single_gallery_shot=splits.single_gallery_shot
        ),
        record,
        splits.describe(),
        compute=compute,
        queries=query_ids(splits.query) if per_query else None,
        verify_at=verify_at,
        warnings=warnings,
    )


def report_features(
    query: Embeddings,
    gallery: Embeddings,
    protocol: Protocol,
    record: ModelRecord,
    dataset: Mapping[str, Any],
    *,
    compute: Compute = Compute(),
    queries: Mapping[str, Sequence[Any]] | None = None,
    verify_at: Sequence[float] = (),
    **attributes: Any,
) -> Report:
    """Rank features of any origin, and report it.

    `dataset` is what the data set says of itself; `queries` are the columns of `query_ids`, to keep
    how each query fared; `attributes` are further ones of the report.
    """
    query, first = pool_queries_of(query, protocol)
    result = rank_embeddings(query, gallery, protocol, compute)
    per_query = verification = None
    if queries is not None:
        columns = {name: [column[i] for i in first] for name, column in queries.items()}
        per_query = per_query_results(result, columns)
    if verify_at:
        found = verify_embeddings(query, gallery, verify_at, protocol, compute)
        verification = asdict(found) | {"points": [asdict(point) for point in found.points]}
    return Report.of(
        result,
        record,
        dataset,
        protocol,
        query_pids=query.pids,
        verification=verification,
        per_query=per_query,
        **attributes,
    )


def pool_queries_of(images: Embeddings, protocol: Protocol) -> tuple[Embeddings, list[int]]:
    """The queries that a protocol makes of the query images, and the first image of each.

    For multi-query all images of a person under a camera are one query, else each is its own.
    """
    if not protocol.multi_query:
        return images, [*range(len(images))]
    features, pids, camids, first = pool_queries(images.features, images.pids, images.camids)
    return Embeddings(features, pids, camids), first.tolist()
