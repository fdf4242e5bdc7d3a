"""From a model and a data set to what the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rga_timm.data import ReidSplits, eval_transform
from rga_timm.evaluation import Protocol, check_testable, diagnose, hash_weights
from rga_timm.evaluation.dataset import embed_split, protocol_on
from rga_timm.evaluation.reports.from_features import report_features
from rga_timm.evaluation.reports.per_query import query_ids
from rga_timm.report_page.page import Side


def evaluate_side(
    model: nn.Module,
    splits: ReidSplits,
    protocol: Protocol,
    *,
    name: str,
    checkpoint: str | None = None,
    batch_size: int = 128,
    num_workers: int = 4,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    trained_on: Sequence[Mapping[str, Any]] = (),
    log_warnings: bool = True,
    progress: bool = True,
) -> Side:
    """Find the queries of a data set in its gallery, and keep what the page shows of it.

    Args:
        model: Any timm model; of an RGA model the page shows the spatial attention.
        splits: The data set.
        protocol: How to test: without multi-query, query expansion and re-ranking, whose lists the
            page does not show.
        name: Of the model.
        checkpoint: Where its weights are from.
        batch_size: Images embedded at a time.
        num_workers: Processes that read images.
        device: Where the model runs.
        channels_last: Run in that memory format.
        trained_on: As of :func:`rga_timm.evaluation.evaluate_dataset`.
        log_warnings: Log the report's warnings too.
        progress: Show bars.

    Returns:
        The report, the features and the model, for :func:`write_page`.

    Raises:
        ValueError: If the data set cannot be tested on, or not in this way.
    """
    if protocol.multi_query or protocol.expansion or protocol.rerank:
        raise ValueError("the page shows plain ranked lists: no multi-query, expansion, re-ranking")
    check_testable([splits])
    protocol = protocol_on(splits, protocol)
    query, gallery = (
        embed_split(
            protocol,
            model,
            reader,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            channels_last=channels_last,
            progress=progress,
        )
        for reader in (splits.query, splits.gallery)
    )
    report = report_features(
        query,
        gallery,
        protocol,
        model=name,
        checkpoint=checkpoint,
        dataset=splits.describe(),
        weights=hash_weights(model),
        query_ids=query_ids(splits.query),
        warnings=diagnose(splits, query, gallery, metric=protocol.metric, trained_on=trained_on),
        log_warnings=log_warnings,
        device=device,
        progress=progress,
    )
    transform = eval_transform(
        protocol.img_size, protocol.mean, protocol.std, protocol.interpolation
    )
    return Side(report, query, gallery, model, transform, device)
