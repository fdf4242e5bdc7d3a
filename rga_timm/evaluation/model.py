"""From a model and two loaders to its scores."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rga_timm.evaluation.embedding.embed import Embeddings, embed
from rga_timm.evaluation.ranking.evaluate import ReidResult, evaluate
from rga_timm.evaluation.ranking.expansion import pool_queries
from rga_timm.evaluation.reports.report import Protocol

Batches = Iterable[tuple[Tensor, Tensor]]


def evaluate_model(
    model: nn.Module,
    query: Batches,
    gallery: Batches,
    protocol: Protocol,
    *,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    distributed: bool = False,
    progress: bool = True,
) -> ReidResult:
    """Embed queries and gallery, and rank, as a protocol says.

    Args:
        model: any timm model.
        query: yields images (B, 3, H, W), already preprocessed as `protocol` says, and targets
            (B, 2) [person id, camera id], or (B, 3) with the tracklet: tracklets are ranked by the
            mean feature of their images, as `embed` says.
        gallery: the same. It may be of tracklets where the queries are images, and the reverse.
        protocol: feature, distance, flip, scales, multi-query, query expansion, re-ranking,
            precision and the kind of the CMC. What it says of preprocessing and cameras is a matter
            of the loaders.
        device: where the model runs and the ranking is computed.
        channels_last: run in that memory format.
        distributed: the processes of the default group share the work: each one's loaders have its
            part of the images, and it ranks its part of the queries. All get the same result.
        progress: show progress bars.

    Returns:
        The scores.

    Raises:
        ValueError: as `embed` and `evaluate`.
    """
    queries, images = (
        embed_as(
            protocol,
            model,
            loader,
            device=device,
            channels_last=channels_last,
            distributed=distributed,
            progress=progress,
        )
        for loader in (query, gallery)
    )
    queries, _ = queries_of(protocol, queries)
    return evaluate_features(
        queries, images, protocol, device=device, distributed=distributed, progress=progress
    )


def embed_as(
    protocol: Protocol,
    model: nn.Module,
    loader: Batches,
    *,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    distributed: bool = False,
    progress: bool = True,
) -> Embeddings:
    """Embed the images of a loader, as a protocol says.

    Args:
        protocol: feature, flip, scales and precision.
        model: as for `evaluate_model`, and so are the others.
        loader: queries or gallery.
        device: the same.
        channels_last: the same.
        distributed: the same.
        progress: the same.

    Returns:
        The features, of images or of tracklets; of all processes.

    Raises:
        ValueError: as `embed`.
    """
    return embed(
        model,
        loader,
        device=device,
        feature=protocol.feature,
        flip=protocol.flip,
        scales=protocol.scales,
        amp_dtype=getattr(torch, protocol.amp_dtype) if protocol.amp_dtype else None,
        channels_last=channels_last,
        distributed=distributed,
        progress=progress,
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
