"""From a model and a data set to a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from rga_timm.data import ReidReader, ReidSplits, create_eval_loader, eval_transform
from rga_timm.evaluation.compute import Compute
from rga_timm.evaluation.distributed import rank_and_world_size
from rga_timm.evaluation.embedding.embed import Embeddings, embed
from rga_timm.evaluation.protocol import Protocol
from rga_timm.evaluation.ranking.evaluate import ReidResult
from rga_timm.evaluation.record import ModelRecord
from rga_timm.evaluation.reports.average import combine_partitions
from rga_timm.evaluation.reports.from_features import (
    pool_queries_of,
    rank_embeddings,
    report_embeddings,
)
from rga_timm.evaluation.reports.report import Report

Batches = Iterable[tuple[Tensor, Tensor]]


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
            is put into it.
        record: What the report says of the model; the hash of the weights is added.
        compute: Device, batches, processes.
        per_query: Keep how each query fared, for paired comparisons. The mean over partitions
            has no such results.
        verify_at: False positive rates at which pairs are verified too, as by `verify`.

    Returns:
        The report, with what `diagnose` warns of as its `warnings`.

    Raises:
        ValueError: The data set has no queries or no gallery, or as `embed` and `evaluate`.
    """
    partitions = [splits] if isinstance(splits, ReidSplits) else splits
    check_testable(partitions)
    record = record.with_hash_of(model)
    return combine_partitions(
        [
            report_embeddings(
                *embed_queries_and_gallery(model, part, protocol, compute),
                part,
                protocol,
                record,
                compute=compute,
                per_query=per_query,
                verify_at=verify_at,
            )
            for part in partitions
        ]
    )


def evaluate_model(
    model: nn.Module,
    query: Batches,
    gallery: Batches,
    protocol: Protocol,
    *,
    compute: Compute = Compute(),
) -> ReidResult:
    """Embed the queries and the gallery of two loaders, and rank.

    Args:
        model: Any timm model.
        query: Batches as for `embed`, preprocessed as the protocol says. With several processes
            each one's loaders have its part of the images.
        gallery: The same. It may be of tracklets where the queries are images, and the reverse.
        protocol: How to test; what it says of preprocessing and cameras is left to the loaders.
        compute: Device and processes.

    Raises:
        ValueError: As `embed` and `evaluate`.
    """
    queries, images = (embed_loader(model, one, protocol, compute) for one in (query, gallery))
    return rank_embeddings(pool_queries_of(queries, protocol)[0], images, protocol, compute)


def embed_loader(
    model: nn.Module, loader: Batches, protocol: Protocol, compute: Compute
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
    """Embed the queries or the gallery of a data set: images, or tracklets; of all processes."""
    rank, world_size = rank_and_world_size(compute.distributed)
    loader = create_eval_loader(
        reader,
        eval_transform(protocol.img_size, protocol.mean, protocol.std, protocol.interpolation),
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
    """Embed what a data set is tested on."""
    query, gallery = (
        embed_split(model, reader, protocol, compute) for reader in (splits.query, splits.gallery)
    )
    return query, gallery


def check_testable(partitions: Sequence[ReidSplits]) -> None:
    """Raise a ValueError unless there are queries and a gallery."""
    for part in partitions:
        for split in ("query", "gallery"):
            if not len(part.readers[split]):
                raise ValueError(f"{part.name} cannot be tested on: its {split} is empty")
