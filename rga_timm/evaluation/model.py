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
        protocol: feature, distance, flip, scales, re-ranking, precision and the kind of the CMC.
            What it says of preprocessing and cameras is a matter of the loaders.
        device: where the model runs and the ranking is computed.
        channels_last: run in that memory format.
        progress: show progress bars.

    Returns:
        The scores.

    Raises:
        ValueError: as `embed` and `evaluate`.
    """
    queries, images = (
        embed(
            model,
            loader,
            device=device,
            feature=protocol.feature,
            flip=protocol.flip,
            scales=protocol.scales,
            amp_dtype=getattr(torch, protocol.amp_dtype) if protocol.amp_dtype else None,
            channels_last=channels_last,
            progress=progress,
        )
        for loader in (query, gallery)
    )
    return evaluate_features(queries, images, protocol, device=device)


def evaluate_features(
    query: Embeddings,
    gallery: Embeddings,
    protocol: Protocol,
    *,
    device: torch.device | str | None = None,
) -> ReidResult:
    """Rank what is embedded, as a protocol says.

    Args:
        query: features and ids of the queries.
        gallery: the same of the gallery.
        protocol: distance, re-ranking and the kind of the CMC.
        device: where the ranking is computed; as `evaluate`.

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
        single_gallery_shot=protocol.single_gallery_shot,
        device=device,
    )
