"""From stored embeddings to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from rga_timm.data import ReidImage, ReidReader
from rga_timm.data.reader import NO_TRACKLET
from rga_timm.evaluation.compute import Compute
from rga_timm.evaluation.embedding.embed import Embeddings, collect
from rga_timm.evaluation.embedding.store import iter_embeddings, read_metadata
from rga_timm.evaluation.embedding.tracklets import TrackletMeans
from rga_timm.evaluation.protocol import Protocol
from rga_timm.evaluation.record import ModelRecord
from rga_timm.evaluation.reports.diagnosis import collapsed_features, queries_without_match
from rga_timm.evaluation.reports.from_features import report_features
from rga_timm.evaluation.reports.per_query import query_ids
from rga_timm.evaluation.reports.report import Report, software_versions

_BATCH = 128  # images of tracklets summed up at a time


def evaluate_embeddings(
    folder: str | Path,
    protocol: Protocol | None = None,
    *,
    compute: Compute = Compute(progress=False),
    per_query: bool = False,
    verify_at: Sequence[float] = (),
) -> Report:
    """Find the stored queries of a data set in its stored gallery.

    The scores are those of the model itself, up to the last bits of features: these may differ with
    the batches that the images were in. Images of tracklets are averaged, as `embed` does it.

    Args:
        folder: Of embeddings, with the splits `query` and `gallery` of a data set.
        protocol: How to test, of `protocol_of` and the folder's metadata; by the cosine by default.
        compute: Device and processes of the ranking.
        per_query: Keep how each query fared.
        verify_at: False positive rates at which pairs are verified too.

    Returns:
        The report, of the model and the preprocessing that the metadata name. Versions of software
        are those of the ranking; where the embeddings were made with others, these stand beside.

    Raises:
        FileNotFoundError: There are no embeddings in the folder.
        ValueError: They are of no data set, or not of its queries and gallery; as
            `iter_embeddings` and `evaluate`.
    """
    metadata = read_testable_metadata(folder)
    protocol = protocol or protocol_of(metadata)
    query, gallery = read_splits(folder, "query", "gallery")
    now = software_versions()
    made_with = {
        f"{name} (embeddings)": version
        for name, version in metadata.get("software", {}).items()
        if now.get(name) != version
    }
    return report_features(
        query,
        gallery,
        protocol,
        ModelRecord(metadata["model"], metadata.get("checkpoint"), metadata.get("weights_sha256")),
        metadata["dataset"],
        compute=compute,
        queries=_query_ids(folder) if per_query else None,
        verify_at=verify_at,
        warnings=[
            *queries_without_match(query, gallery, has_cameras=protocol.cameras),
            *collapsed_features(query, gallery, metric=protocol.metric),
        ],
        software=now | made_with,
    )


def read_testable_metadata(folder: str | Path) -> dict[str, Any]:
    """The metadata of embeddings that can be evaluated.

    Raises:
        FileNotFoundError: There are no embeddings in the folder.
        ValueError: They are of no data set, or not of its queries and gallery.
    """
    metadata = read_metadata(folder)
    if not metadata.get("dataset"):
        raise ValueError(
            f"{folder} holds embeddings of a plain folder of images, of which it is not known whom "
            "they show: embed a data set (rga-timm embed --dataset) to evaluate"
        )
    if lacking := [split for split in ("query", "gallery") if split not in metadata["splits"]]:
        raise ValueError(
            f"{folder} holds embeddings of {', '.join(metadata['splits'])}, but not of "
            f"{' and '.join(lacking)}: embed both (--splits query gallery) to evaluate"
        )
    return metadata


def protocol_of(metadata: Mapping[str, Any], **test: Any) -> Protocol:
    """The protocol of a test with stored embeddings.

    Args:
        metadata: Of `read_metadata`.
        test: What the metadata do not decide: metric, multi_query, expansion and rerank.
    """
    return replace(msgspec.convert(metadata, Protocol), **test)


def read_splits(folder: str | Path, *splits: str) -> list[Embeddings]:
    """Stored embeddings of some splits, of each image or of each tracklet, as `embed` gives them.

    Images of tracklets do not stay in memory.

    Raises:
        FileNotFoundError: There are no embeddings in the folder.
        ValueError: A split is empty, some of its images are of tracklets and others are not, or
            those of one tracklet show several persons; as `iter_embeddings`.
    """
    images: dict[str, tuple[list[Tensor], list[Tensor]]] = {split: ([], []) for split in splits}
    tracklets = {split: TrackletMeans() for split in splits}
    for shard in iter_embeddings(folder):
        features = torch.from_numpy(shard.features)
        targets = torch.from_numpy(np.stack([shard.pids, shard.camids, shard.tracklets], axis=1))
        is_single = targets[:, 2] == NO_TRACKLET
        for split in splits:
            in_split = torch.tensor([name == split for name in shard.splits])
            if (single := in_split & is_single).any():
                images[split][0].append(features[single])
                images[split][1].append(targets[single, :2])
            for rows in torch.nonzero(in_split & ~is_single).flatten().split(_BATCH):
                tracklets[split].add(features[rows], targets[rows])
    found = []
    for split in splits:
        try:
            found.append(collect(*images[split], tracklets[split], distributed=False))
        except ValueError as error:
            raise ValueError(f"{folder}, {split}: {error}") from error
    return found


def _query_ids(folder: str | Path) -> dict[str, list[Any]]:
    """Which queries are stored, as `per_query.query_ids` says it of a data set's."""
    images = [
        ReidImage(shard.paths[i], int(shard.pids[i]), int(shard.camids[i]), int(shard.tracklets[i]))
        for shard in iter_embeddings(folder)
        for i, split in enumerate(shard.splits)
        if split == "query"
    ]
    return query_ids(ReidReader(folder, images))
