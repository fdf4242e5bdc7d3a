"""From a model and two loaders to its scores."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rga_timm.evaluation.embedding.embed import Embeddings, embed
from rga_timm.evaluation.ranking.evaluate import ReidResult
from rga_timm.evaluation.reports.from_features import evaluate_features, queries_of
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
