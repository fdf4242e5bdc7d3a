"""From features to a report."""

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

    Several rankings can thus share the same embeddings. The arguments are those of
    `evaluate_dataset`, but the record must have the hash of the weights already.
    """
    has_cameras, single_shot = splits.has_cameras, splits.single_gallery_shot
    return report_features(
        query,
        gallery,
        replace(protocol, cameras=has_cameras, single_gallery_shot=single_shot),
        record,
        splits.describe(),
        compute=compute,
        queries=query_ids(splits.query) if per_query else None,
        verify_at=verify_at,
        warnings=diagnose(
            splits, query, gallery, metric=protocol.metric, trained_on=record.trained_on
        ),
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

    `dataset` describes the data set; `queries` are the columns of `query_ids`, to keep the scores
    of each query; `attributes` are further ones of the report.
    """
    first = [*range(len(query))]  # image of each query
    if protocol.multi_query:
        features, pids, camids, index = pool_queries(query.features, query.pids, query.camids)
        query, first = Embeddings(features, pids, camids), index.tolist()
    result = rank_embeddings(query, gallery, protocol, compute)
    per_query = verification = None
    if queries is not None:
        columns = {name: [column[i] for i in first] for name, column in queries.items()}
        per_query = per_query_results(result, columns)
    if verify_at:
        found = verify_embeddings(query, gallery, verify_at, protocol, compute)
        verification = asdict(found) | {"points": [asdict(point) for point in found.points]}
    attributes |= {"query_pids": query.pids, "verification": verification, "per_query": per_query}
    return Report.of(result, record, dataset, protocol, **attributes)
