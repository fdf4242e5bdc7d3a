from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from rga_timm.data import ReidImage, ReidSplits, create_eval_loader, eval_transform
from rga_timm.evaluation import (
    Compute,
    ModelRecord,
    Protocol,
    Reranking,
    embed,
    evaluate,
    evaluate_dataset,
    hash_weights,
    report_embeddings,
)
from rga_timm.evaluation.dataset import embed_queries_and_gallery

RECORD = ModelRecord("net", "file")
COMPUTE = Compute(num_workers=0, progress=False)
PROTOCOL = Protocol((32, 16), "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
QUERY = [ReidImage(f"q{i}.png", i, 1) for i in range(4)]
GALLERY = [ReidImage(f"g{i}{j}.png", i, 2 + j) for i in range(5) for j in range(2)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for image in [*QUERY, *GALLERY]:
        pixels = rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / image.path)
    return tmp_path


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=0)


def report_of(model, splits, protocol=PROTOCOL, **options):
    return evaluate_dataset(model, splits, protocol, RECORD, compute=COMPUTE, **options)


def splits(root: Path, name: str = "x", query=QUERY, gallery=GALLERY, **attributes) -> ReidSplits:
    return ReidSplits.from_images(name, root, query=query, gallery=gallery, **attributes)


def test_a_report_holds_what_the_functions_give(root, model):
    part = splits(root)
    report = report_of(model, part)
    transform = eval_transform((32, 16), PROTOCOL.mean, PROTOCOL.std)
    query, gallery = (
        embed(model, create_eval_loader(reader, transform, num_workers=0))
        for reader in (part.query, part.gallery)
    )
    ids = (query.pids, query.camids, gallery.features, gallery.pids, gallery.camids)
    expected = evaluate(query.features, *ids)
    assert report.metrics["mAP"] == pytest.approx(expected.mAP)
    assert report.metrics["cmc"] == pytest.approx(expected.cmc.tolist())
    assert (report.model, report.checkpoint, report.protocol) == ("net", "file", PROTOCOL)
    assert report.dataset == part.describe()
    assert report.weights == hash_weights(model)
    assert report.per_query is None
    assert report.metrics["intervals"]["identities"] == 4


def test_embeddings_are_made_once_for_all_ways_to_rank_them(root, model):
    part = splits(root)
    embedded = embed_queries_and_gallery(model, part, PROTOCOL, COMPUTE)
    for changes in ({}, {"metric": "euclidean"}, {"rerank": Reranking(k1=3, k2=2)}):
        protocol = replace(PROTOCOL, **changes)
        record = RECORD.with_hash_of(model)
        report = report_embeddings(*embedded, part, protocol, record, compute=COMPUTE)
        assert report == report_of(model, part, protocol)


def test_the_data_set_has_its_say_in_the_protocol(root, model):
    usual = report_of(model, splits(root))
    part = splits(root, has_cameras=False, single_gallery_shot=True)
    report = report_of(model, part)
    assert report.protocol == replace(PROTOCOL, cameras=False, single_gallery_shot=True)
    assert report.metrics["mAP"] == usual.metrics["mAP"]
    assert report.metrics["cmc"] != usual.metrics["cmc"]


def test_tracklets_are_ranked_and_not_their_images(root, model):
    gallery = [image._replace(tracklet=image.pid) for image in GALLERY]
    gallery = [image._replace(camid=2) for image in gallery]
    report = report_of(model, splits(root, gallery=gallery))
    assert report.dataset["gallery"]["tracklets"] == 5
    # Of five tracklets, each query has one that is right: all AP are inverse ranks.
    inverse_ranks = [np.diff([0, *report.metrics["cmc"]][: 5 + 1]) @ (1 / np.arange(1, 6))]
    assert report.metrics["mAP"] == pytest.approx(inverse_ranks[0])


def test_each_query_is_reported_with_its_path(root, model):
    part = splits(root, query=[*QUERY[::-1], ReidImage("g40.png", 9, 2)])
    report = report_of(model, part, per_query=True)
    columns = report.per_query
    assert columns["path"] == ["q3.png", "q2.png", "q1.png", "q0.png", "g40.png"]
    assert (columns["pid"], columns["camid"]) == ([3, 2, 1, 0, 9], [1, 1, 1, 1, 2])
    assert columns["average_precision"][4] is None
    assert np.mean(columns["average_precision"][:4]) == pytest.approx(report.metrics["mAP"])
    alone = report_of(model, splits(root, query=QUERY[2:3]))
    assert columns["average_precision"][1] == pytest.approx(alone.metrics["mAP"])


def test_tracklets_are_reported_by_their_number_and_first_image(root, model):
    gallery = [image._replace(tracklet=10 + image.pid, camid=2) for image in GALLERY]
    query = [image._replace(camid=1, tracklet=7 - image.pid) for image in GALLERY[2:8]]
    part = splits(root, query=[*query[::2], *query[1::2]], gallery=gallery)
    columns = report_of(model, part, per_query=True).per_query
    assert columns["tracklet"] == [6, 5, 4]
    assert columns["path"] == ["g10.png", "g20.png", "g30.png"]
    assert columns["pid"] == [1, 2, 3]
    assert len(columns["average_precision"]) == 3


def test_partitions_are_reported_by_their_mean(root, model):
    parts = [splits(root, f"x:split={i}", query=QUERY[i : i + 2]) for i in range(2)]
    mean = report_of(model, parts)
    single = [report_of(model, part).metrics["mAP"] for part in parts]
    assert "intervals" not in mean.metrics
    assert mean.per_query is None
    assert mean.weights == hash_weights(model)
    assert single[0] != single[1]
    assert mean.metrics["mAP"] == pytest.approx(np.mean(single))


@pytest.mark.parametrize("empty", ["query", "gallery"])
def test_a_data_set_that_cannot_be_tested_on_is_refused(root, model, empty):
    with pytest.raises(ValueError, match=f"x cannot be tested on: its {empty} is empty"):
        report_of(model, splits(root, **{empty: []}))
