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

    The scores are those of the model itself, up to the last bits of the features, which may depend
    on the batches. Images of tracklets are averaged, as by `embed`. The versions of software in the
    report are those of the ranking; other versions that made the embeddings are added.

    `folder` holds the splits `query` and `gallery`; `protocol` is from `protocol_of`, by default
    with the cosine; the other arguments are those of `evaluate_dataset`.

    Raises:
        FileNotFoundError: There are no embeddings in the folder.
        ValueError: They are not of the queries and gallery of a data set; as `iter_embeddings` and
            `evaluate`.
    """
    metadata = read_testable_metadata(folder)
    protocol = protocol or protocol_of(metadata)
    query, gallery = read_splits(folder, "query", "gallery")
    software = software_versions()
    for name, version in metadata.get("software", {}).items():
        if software.get(name) != version:
            software[f"{name} (embeddings)"] = version
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
        software=software,
    )


def read_testable_metadata(folder: str | Path) -> dict[str, Any]:
    """Read the metadata of embeddings that can be evaluated; errors as `evaluate_embeddings`."""
    metadata = read_metadata(folder)
    if not metadata.get("dataset"):
        raise ValueError(
            f"{folder} holds embeddings of a plain folder of images, without person ids: embed a "
            "data set (rga-timm embed --dataset) to evaluate"
        )
    if lacking := [split for split in ("query", "gallery") if split not in metadata["splits"]]:
        raise ValueError(
            f"{folder} holds embeddings of {', '.join(metadata['splits'])}, but not of "
            f"{' and '.join(lacking)}: embed both (--splits query gallery) to evaluate"
        )
    return metadata


def protocol_of(metadata: Mapping[str, Any], **test: Any) -> Protocol:
    """Return the protocol of a test with stored embeddings.

    `test` is what the metadata do not decide: metric, multi_query, expansion and rerank.
    """
    return replace(msgspec.convert(metadata, Protocol), **test)


def read_splits(folder: str | Path, *splits: str) -> list[Embeddings]:
    """Read stored embeddings of some splits, of each image or of each tracklet, as `embed` does.

    Errors are those of `iter_embeddings`, and of `embed` for the images of a split.
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
    """Return the columns of `query_ids` for stored queries."""
    images = [
        ReidImage(shard.paths[i], int(shard.pids[i]), int(shard.camids[i]), int(shard.tracklets[i]))
        for shard in iter_embeddings(folder)
        for i, split in enumerate(shard.splits)
        if split == "query"
    ]
    return query_ids(ReidReader(folder, images))
