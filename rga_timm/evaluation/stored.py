"""From stored embeddings to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rga_timm.data import ReidImage, ReidReader
from rga_timm.data.reader import NO_TRACKLET
from rga_timm.evaluation.embedding.embed import Embeddings
from rga_timm.evaluation.embedding.store import StoredEmbeddings, iter_embeddings, read_stamp
from rga_timm.evaluation.embedding.tracklets import TrackletMeans
from rga_timm.evaluation.reports.diagnosis import crowded_similarities, uncounted_queries
from rga_timm.evaluation.reports.from_features import report_features
from rga_timm.evaluation.reports.per_query import query_ids
from rga_timm.evaluation.reports.report import Protocol, Report, software_versions

_BATCH = 128  # images of tracklets summed up at a time


def evaluate_embeddings(
    folder: str | Path,
    protocol: Protocol | None = None,
    *,
    per_query: bool = False,
    verify_at: Sequence[float] = (),
    device: torch.device | str = "cpu",
    distributed: bool = False,
    progress: bool = False,
) -> Report:
    """Find the stored queries of a data set in its stored gallery.

    The scores are those of the model itself, up to the last bits of features: these may differ with
    the batches that the images were in. Images of tracklets are averaged, as `embed` does it.

    Args:
        folder: of embeddings, with the splits `query` and `gallery` of a data set.
        protocol: how to test, of `protocol_of` and the folder's stamp; by the cosine by default.
        per_query: keep how each query fared.
        verify_at: false positive rates at which pairs are verified too.
        device: where the ranking is computed.
        distributed: as for `evaluate`.
        progress: show progress bars.

    Returns:
        The report, of the model and the preprocessing that the stamp names. Versions of software
        are those of the ranking; where the embeddings were made with others, these stand beside.

    Raises:
        FileNotFoundError: there are no embeddings in the folder.
        ValueError: they are of no data set, or not of its queries and gallery; as
            `iter_embeddings` and `evaluate`.
    """
    stamp = check_testable_stamp(folder)
    protocol = protocol or protocol_of(stamp)
    query, gallery = read_splits(folder, "query", "gallery")
    now = software_versions()
    return report_features(
        query,
        gallery,
        protocol,
        model=stamp["model"],
        checkpoint=stamp.get("checkpoint"),
        weights=stamp.get("weights_sha256"),
        dataset=stamp["dataset"],
        query_ids=_query_ids(folder) if per_query else None,
        verify_at=verify_at,
        warnings=[
            *uncounted_queries(query, gallery, has_cameras=protocol.cameras),
            *crowded_similarities(query, gallery, metric=protocol.metric),
        ],
        software={
            f"{name} (embeddings)": version
            for name, version in stamp.get("software", {}).items()
            if now.get(name) != version
        },
        device=device,
        distributed=distributed,
        progress=progress,
    )


def check_testable_stamp(folder: str | Path) -> dict[str, Any]:
    """The stamp of embeddings that can be tested with.

    Raises:
        FileNotFoundError: there are no embeddings in the folder.
        ValueError: they are of no data set, or not of its queries and gallery.
    """
    stamp = read_stamp(folder)
    if not stamp.get("dataset"):
        raise ValueError(
            f"{folder} holds embeddings of a plain folder of images, of which it is not known whom "
            "they show: embed a data set (rga-timm embed --dataset) to evaluate"
        )
    if lacking := [split for split in ("query", "gallery") if split not in stamp["splits"]]:
        raise ValueError(
            f"{folder} holds embeddings of {', '.join(stamp['splits'])}, but not of "
            f"{' and '.join(lacking)}: embed both (--splits query gallery) to evaluate"
        )
    return stamp


def protocol_of(stamp: Mapping[str, Any], **test: Any) -> Protocol:
    """The protocol of a test with the embeddings of a stamp.

    Args:
        stamp: of `read_stamp`.
        test: what the stamp does not decide: metric, multi_query, expansion and rerank.
    """
    return Protocol(
        img_size=(stamp["img_size"][0], stamp["img_size"][1]),
        interpolation=stamp["interpolation"],
        mean=tuple(stamp["mean"]),
        std=tuple(stamp["std"]),
        feature=stamp["feature"],
        flip=stamp["flip"],
        scales=tuple(stamp["scales"]),
        amp_dtype=stamp["amp_dtype"],
        single_gallery_shot=stamp.get("single_gallery_shot", False),
        cameras=stamp.get("cameras", True),
        **test,
    )


def read_splits(folder: str | Path, *splits: str) -> list[Embeddings]:
    """Stored embeddings of some splits, of each image or of each tracklet, as `embed` gives them.

    Images of tracklets do not stay in memory.

    Raises:
        FileNotFoundError: there are no embeddings in the folder.
        ValueError: a split is empty, some of its images are of tracklets and others are not, or
            those of one tracklet show several persons; as `iter_embeddings`.
    """
    images: dict[str, list[Embeddings]] = {split: [] for split in splits}
    tracklets = {split: TrackletMeans() for split in splits}
    for shard in iter_embeddings(folder):
        names = np.array(shard.splits)
        for split in splits:
            rows = np.flatnonzero(names == split)
            single = shard.tracklets[rows] == NO_TRACKLET
            if single.any():
                images[split].append(_rows(shard, rows[single]))
            _add_tracklets(tracklets[split], shard, rows[~single])
    found = []
    for split in splits:
        if images[split] and tracklets[split]:
            raise ValueError(
                f"{folder}: some images of {split} are of tracklets and others are not"
            )
        if tracklets[split]:
            means, ids = tracklets[split].result()
            found.append(Embeddings(means, pids=ids[:, 0].copy(), camids=ids[:, 1].copy()))
        elif images[split]:
            found.append(_join(images[split]))
        else:
            raise ValueError(f"{folder} holds no image of {split}")
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


def _rows(shard: StoredEmbeddings, rows: np.ndarray) -> Embeddings:
    features = torch.from_numpy(shard.features[rows])
    return Embeddings(features, pids=shard.pids[rows], camids=shard.camids[rows])


def _add_tracklets(means: TrackletMeans, shard: StoredEmbeddings, rows: np.ndarray) -> None:
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        targets = np.stack([shard.pids[some], shard.camids[some], shard.tracklets[some]], axis=1)
        means.add(torch.from_numpy(shard.features[some]), torch.from_numpy(targets))


def _join(parts: list[Embeddings]) -> Embeddings:
    return Embeddings(
        torch.cat([part.features for part in parts]),
        pids=np.concatenate([part.pids for part in parts]),
        camids=np.concatenate([part.camids for part in parts]),
    )
