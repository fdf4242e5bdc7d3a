from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from stored_folder import DATASET, small_embeddings, write

from rga_timm.evaluation import (
    Embeddings,
    ReidResult,
    Reranking,
    StoredEmbeddings,
    evaluate,
    evaluate_embeddings,
    protocol_of,
    read_metadata,
)


@pytest.fixture(params=["parquet", "safetensors"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "embeddings", shard_format=request.param)


def scores(result: ReidResult) -> dict[str, Any]:
    names = ("mAP", "mAP_trapezoid", "mINP", "num_valid_queries")
    return {"cmc": result.cmc.tolist()} | {name: getattr(result, name) for name in names}


def by_hand(query: Embeddings, gallery: Embeddings, **options: Any) -> dict[str, Any]:
    sides = [(side.features, side.pids, side.camids) for side in (query, gallery)]
    return scores(evaluate(*sides[0], *sides[1], **options))


def images_of(embeddings: StoredEmbeddings, rows: slice) -> Embeddings:
    features = torch.from_numpy(embeddings.features[rows])
    return Embeddings(features, embeddings.pids[rows], embeddings.camids[rows])


@pytest.mark.parametrize("options", [{}, {"metric": "euclidean", "rerank": Reranking(3, 2, 0.5)}])
def test_stored_embeddings_score_as_they_do_in_memory(
    folder: Path, options: dict[str, Any]
) -> None:
    report = evaluate_embeddings(folder, protocol_of(read_metadata(folder), **options))
    embeddings = small_embeddings()
    query, gallery = (images_of(embeddings, rows) for rows in (slice(4), slice(4, None)))
    assert by_hand(query, gallery, **options).items() <= report.metrics.items()
    assert (report.model, report.checkpoint) == ("test_resnet", "model.pth")
    assert report.dataset == DATASET
    protocol = report.protocol
    assert (protocol.img_size, protocol.mean) == ((64, 32), (0.1, 0.2, 0.3))
    assert (protocol.flip, protocol.scales, protocol.cameras) == (True, (1.0, 1.25), True)
    assert (protocol.metric, protocol.rerank) == (
        options.get("metric", "cosine"),
        options.get("rerank"),
    )


@pytest.mark.parametrize("shard_size", [1, 3, 20])
def test_images_of_tracklets_are_averaged_over_shards(tmp_path: Path, shard_size: int) -> None:
    embeddings = small_embeddings(tracklets=True)
    report = evaluate_embeddings(write(tmp_path, embeddings, shard_size=shard_size))
    features = embeddings.features.astype(np.float64)
    members = [[4, 5], [6], [7], [8, 9], [10]]
    means = torch.from_numpy(np.stack([features[rows].mean(0) for rows in members])).float()
    first = [rows[0] for rows in members]
    gallery = Embeddings(means, embeddings.pids[first], embeddings.camids[first])
    assert by_hand(images_of(embeddings, slice(4)), gallery).items() <= report.metrics.items()


def test_the_data_set_has_its_say_in_the_protocol(tmp_path: Path) -> None:
    folder = write(tmp_path, cameras=False, single_gallery_shot=True)
    report = evaluate_embeddings(folder)
    assert (report.protocol.cameras, report.protocol.single_gallery_shot) == (False, True)
    embeddings = small_embeddings()
    query, gallery = (images_of(embeddings, rows) for rows in (slice(4), slice(4, None)))
    assert report.metrics["cmc"] == by_hand(query, gallery, single_gallery_shot=True)["cmc"]
    assert report.metrics["cmc"] != by_hand(query, gallery)["cmc"]


def test_versions_that_made_the_embeddings_are_told_where_they_are_others(tmp_path: Path) -> None:
    folder = write(tmp_path, software={"torch": "1.0", "timm": timm.__version__})
    software = evaluate_embeddings(folder).software
    assert software["torch (embeddings)"] == "1.0"
    assert software["torch"] == torch.__version__
    assert "timm (embeddings)" not in software


def test_what_cannot_be_evaluated_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of a plain folder of images"):
        evaluate_embeddings(write(tmp_path / "plain", dataset=None, splits=[""]))
    with pytest.raises(ValueError, match="of query, train, but not of gallery"):
        evaluate_embeddings(write(tmp_path / "train", splits=["query", "train"]))
    mixed = small_embeddings()
    mixed.tracklets[6] = 3
    with pytest.raises(
        ValueError, match="gallery: some images are of tracklets and others are not"
    ):
        evaluate_embeddings(write(tmp_path / "mixed", mixed))
    empty = small_embeddings()
    empty.splits[:4] = ["gallery"] * 4
    with pytest.raises(ValueError, match="query: there are no images"):
        evaluate_embeddings(write(tmp_path / "empty", empty))
