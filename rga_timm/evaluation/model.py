"""From a model and two loaders to its scores."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rga_timm.evaluation.embed import Embeddings, embed
from rga_timm.evaluation.ranking import ReidResult, evaluate
from rga_timm.evaluation.report import Protocol

Batches = Iterable[tuple[Tensor, Tensor]]


def evaluate_model(
    model: nn.Module,
    query: Batches,
    gallery: Batches,
    protocol: Protocol,
    *,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    progress: bool = True,
) -> ReidResult:
    """Embed queries and gallery, and rank, as a protocol says.

    Args:
        model: any timm model.
        query: yields images (B, 3, H, W), already preprocessed as `protocol` says, and targets
            (B, 2) [person id, camera id], or (B, 3) with the tracklet: tracklets are ranked by the
            mean feature of their images, as `embed` says.
        gallery: the same. It may be of tracklets where the queries are images, and the reverse.
        protocol: feature, distance, flip, re-ranking, precision and the kind of the CMC. What it
            says of preprocessing and cameras is a matter of the loaders.
        device: where the model runs and the ranking is computed.
        channels_last: run in that memory format.
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
            progress=progress,
        )
        for loader in (query, gallery)
    )
    return evaluate_embeddings(queries, images, protocol, device=device)


def embed_as(
    protocol: Protocol,
    model: nn.Module,
    loader: Batches,
    *,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    progress: bool = True,
) -> Embeddings:
    """Embed the images of a loader, as a protocol says.

    Args:
        protocol: feature, flip and precision.
        model: as for `evaluate_model`, and so are the others.
        loader: queries or gallery.
        device: the same.
        channels_last: the same.
        progress: the same.

    Returns:
        The features, of images or of tracklets.

    Raises:
        ValueError: as `embed`.
    """
    return embed(
        model,
        loader,
        device=device,
        feature=protocol.feature,
        flip=protocol.flip,
        amp_dtype=getattr(torch, protocol.amp_dtype) if protocol.amp_dtype else None,
        channels_last=channels_last,
        progress=progress,
    )


def evaluate_embeddings(
    queries: Embeddings,
    images: Embeddings,
    protocol: Protocol,
    *,
    device: torch.device | str = "cpu",
) -> ReidResult:
    """Rank features that were made before, as a protocol says.

    Args:
        queries: the queries' features and ids.
        images: the gallery's.
        protocol: distance, re-ranking and the kind of the CMC.
        device: where the ranking is computed.

    Returns:
        The scores.

    Raises:
        ValueError: as `evaluate`.
    """
    return evaluate(
        queries.features,
        queries.pids,
        queries.camids,
        images.features,
        images.pids,
        images.camids,
        metric=protocol.metric,
        rerank=protocol.rerank,
        single_gallery_shot=protocol.single_gallery_shot,
        device=device,
    )
