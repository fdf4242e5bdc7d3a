"""From a model and a data set to a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from rga_timm.data import ReidReader, ReidSplits, create_eval_loader
from rga_timm.evaluation.compute import Compute
from rga_timm.evaluation.distributed import rank_and_world_size
from rga_timm.evaluation.embedding.embed import Embeddings, embed
from rga_timm.evaluation.protocol import Protocol
from rga_timm.evaluation.record import ModelRecord
from rga_timm.evaluation.reports.average import combine_partitions
from rga_timm.evaluation.reports.from_features import report_embeddings
from rga_timm.evaluation.reports.report import Report


def evaluate_dataset(
    model: nn.Module,
    splits: ReidSplits | Sequence[ReidSplits],
    protocol: Protocol,
    record: ModelRecord,
    *,
    compute: Compute = Compute(),
    per_query: bool = False,
    verify_at: Sequence[float] = (),
) -> Report:
    """Find the queries of a data set in its gallery.

    Args:
        model: Any timm model.
        splits: The data set; or its partitions, whose mean is reported.
        protocol: How to test. What the data set itself prescribes (no cameras, single gallery shot)
            is added to it.
        record: What the report says of the model; the hash of the weights is added.
        compute: Device, batches, processes.
        per_query: Keep the scores of each query, for paired comparisons. The mean over partitions
            has none.
        verify_at: False positive rates at which pairs are verified too, as by `verify`.

    Returns:
        The report, with the `warnings` of `diagnose`.

    Raises:
        ValueError: As `check_testable`, `embed` and `evaluate`.
    """
    partitions = [splits] if isinstance(splits, ReidSplits) else splits
    check_testable(partitions)
    record = record.with_hash_of(model)
    reports = []
    for part in partitions:
        query, gallery = embed_queries_and_gallery(model, part, protocol, compute)
        report = report_embeddings(
            query,
            gallery,
            part,
            protocol,
            record,
            compute=compute,
            per_query=per_query,
            verify_at=verify_at,
        )
        reports.append(report)
    return combine_partitions(reports)


def embed_loader(
    model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], protocol: Protocol, compute: Compute
) -> Embeddings:
    """Embed the images of a loader with the feature, flip, scales and precision of a protocol."""
    return embed(
        model,
        loader,
        device=compute.device,
        feature=protocol.feature,
        flip=protocol.flip,
        scales=protocol.scales,
        amp_dtype=getattr(torch, protocol.amp_dtype) if protocol.amp_dtype else None,
        channels_last=compute.channels_last,
        distributed=compute.distributed,
        progress=compute.progress,
    )


def embed_split(
    model: nn.Module, reader: ReidReader, protocol: Protocol, compute: Compute
) -> Embeddings:
    """Embed the images or tracklets of a split; all processes get all of them."""
    rank, world_size = rank_and_world_size(compute.distributed)
    loader = create_eval_loader(
        reader,
        protocol.transform(),
        compute.batch_size,
        num_workers=compute.num_workers,
        rank=rank,
        world_size=world_size,
        pin_memory=torch.device(compute.device).type == "cuda",
    )
    return embed_loader(model, loader, protocol, compute)


def embed_queries_and_gallery(
    model: nn.Module, splits: ReidSplits, protocol: Protocol, compute: Compute
) -> tuple[Embeddings, Embeddings]:
    """Embed the queries and the gallery of a data set."""
    query = embed_split(model, splits.query, protocol, compute)
    return query, embed_split(model, splits.gallery, protocol, compute)


def check_testable(partitions: Sequence[ReidSplits]) -> None:
    """Raise a ValueError unless there are queries and a gallery, and some query has a match."""
    for part in partitions:
        cannot = f"{part.name} cannot be tested on"
        for split in ("query", "gallery"):
            if not len(part.readers[split]):
                raise ValueError(f"{cannot}: its {split} is empty")
        matches = part.matches
        if not matches.counted:
            raise ValueError(f"{cannot}: no query has a match: {matches.reasons(part.has_cameras)}")
