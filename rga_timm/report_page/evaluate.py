"""From a model and a data set to what the page shows."""

from __future__ import annotations

from torch import nn

from rga_timm.data import ReidSplits
from rga_timm.evaluation import (
    Compute,
    ModelRecord,
    Protocol,
    check_testable,
    report_embeddings,
)
from rga_timm.evaluation.dataset import embed_queries_and_gallery
from rga_timm.report_page.page import Side


def evaluate_side(
    model: nn.Module,
    splits: ReidSplits,
    protocol: Protocol,
    record: ModelRecord,
    *,
    compute: Compute = Compute(),
) -> Side:
    """Find the queries of a data set in its gallery, and keep what the page shows of it.

    Args:
        model: Any timm model; of an RGA model the page shows the spatial attention.
        splits: The data set.
        protocol: How to test: without multi-query, query expansion and re-ranking, whose lists the
            page does not show.
        record: What the report says of the model.
        compute: Device and batches.

    Returns:
        The report, the features and the model, for :func:`write_page`.

    Raises:
        ValueError: If the data set cannot be tested on, or not in this way.
    """
    if protocol.multi_query or protocol.expansion or protocol.rerank:
        raise ValueError("the page shows plain ranked lists: no multi-query, expansion, re-ranking")
    check_testable([splits])
    query, gallery = embed_queries_and_gallery(model, splits, protocol, compute)
    record = record.with_hash_of(model)
    report = report_embeddings(
        query, gallery, splits, protocol, record, compute=compute, per_query=True
    )
    return Side(report, query, gallery, model, protocol.transform(), compute.device)
