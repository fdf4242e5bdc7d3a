"""From stored embeddings to a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rga_timm.data.reader import NO_TRACKLET
from rga_timm.evaluation.embed import Embeddings
from rga_timm.evaluation.model import evaluate_features
from rga_timm.evaluation.report import Protocol, Report
from rga_timm.evaluation.rerank import Reranking
from rga_timm.evaluation.store import StoredEmbeddings, iter_embeddings, read_stamp
from rga_timm.evaluation.tracklets import TrackletMeans

_BATCH = 128  # images of tracklets summed up at a time


def evaluate_embeddings(
    folder: str | Path,
    *,
    metric: str = "cosine",
    rerank: Reranking | None = None,
    device: torch.device | str = "cpu",
) -> Report:
    """Find the stored queries of a data set in its stored gallery.

    The scores are those of the model itself, up to the last bits of features: these may differ with
    the batches that the images were in. Images of tracklets are averaged, as `embed` does it.

    Args:
        folder: of embeddings, with the splits `query` and `gallery` of a data set.
        metric: `cosine` or `euclidean`.
        rerank: k-reciprocal re-ranking; None for none.
        device: where the ranking is computed.

    Returns:
        The report, of the model and the preprocessing that the stamp names. Versions of software
        are those of the ranking; where the embeddings were made with others, these stand beside.

    Raises:
        FileNotFoundError: there are no embeddings in the folder.
        ValueError: they are of no data set, or not of its queries and gallery; as
            `iter_embeddings` and `evaluate`.
    """
    stamp = check_testable_stamp(folder)
    protocol = protocol_of(stamp, metric, rerank)
    query, gallery = read_splits(folder, "query", "gallery")
    result = evaluate_features(query, gallery, protocol, device=device)
    report = Report.of(
        result,
        model=stamp["model"],
        checkpoint=stamp.get("checkpoint"),
        dataset=stamp["dataset"],
        protocol=protocol,
    )
    others = {
        f"{name} (embeddings)": version
        for name, version in stamp.get("software", {}).items()
        if report.software.get(name) != version
    }
    return replace(report, software={**report.software, **others})


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
            "they show: embed a data set (embed.py --dataset) to evaluate"
        )
    if lacking := [split for split in ("query", "gallery") if split not in stamp["splits"]]:
        raise ValueError(
            f"{folder} holds embeddings of {', '.join(stamp['splits'])}, but not of "
            f"{' and '.join(lacking)}: embed both (embed.py --splits query gallery) to evaluate"
        )
    return stamp


def protocol_of(
    stamp: Mapping[str, Any], metric: str = "cosine", rerank: Reranking | None = None
) -> Protocol:
    """The protocol of a test with the embeddings of a stamp."""
    return Protocol(
        img_size=(stamp["img_size"][0], stamp["img_size"][1]),
        interpolation=stamp["interpolation"],
        mean=tuple(stamp["mean"]),
        std=tuple(stamp["std"]),
        feature=stamp["feature"],
        metric=metric,
        flip=stamp["flip"],
        scales=tuple(stamp["scales"]),
        rerank=rerank,
        amp_dtype=stamp["amp_dtype"],
        single_gallery_shot=stamp.get("single_gallery_shot", False),
        cameras=stamp.get("cameras", True),
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
