from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from small_reports import random_report

from rga_timm.data import ReidImage, ReidSplits
from rga_timm.evaluation import (
    Compute,
    Embeddings,
    ModelRecord,
    Protocol,
    average_reports,
    describe_training,
    diagnose,
    evaluate,
    evaluate_dataset,
    log_warnings,
)
from rga_timm.evaluation.reports.diagnosis import (
    collapsed_features,
    effective_rank,
    queries_without_match,
    same_training_people,
    train_test_overlap,
)


def images(*pids: int, camid: int = 1) -> list[ReidImage]:
    return [ReidImage(f"{camid}/{pid}.png", pid, camid) for pid in pids]


def splits(name: str = "x", train=(1, 2, 3), query=(4, 5), gallery=(0, 4, 5, 6), **attributes):
    return ReidSplits.from_images(
        name,
        Path("unused"),
        train=images(*train),
        query=images(*query),
        gallery=images(*gallery, camid=2),
        **attributes,
    )


def embeddings(features: np.ndarray, pids: Any, camids: Any) -> Embeddings:
    features = torch.from_numpy(np.asarray(features, dtype=np.float32))
    return Embeddings(features, np.asarray(pids), np.asarray(camids))


def ids(pids: list[int], camids: list[int]) -> Embeddings:
    return embeddings(np.ones((len(pids), 1)), pids, camids)


# Whom the model was trained on


def test_what_was_trained_on_is_recorded_in_few_characters() -> None:
    described = describe_training(splits(train=(9, 2, 3, 4, 7, 2)))
    assert described["train_pids"] == "2..4,7,9"
    assert described == {**splits(train=(9, 2, 3, 4, 7, 2)).describe(), "train_pids": "2..4,7,9"}
    assert json.loads(json.dumps(described)) == described
    assert describe_training(splits(same_numbering=False))["train_pids"] is None


def test_people_of_another_partition_that_were_trained_on_are_found() -> None:
    trained_on = [describe_training(splits("viper:split=3", train=(1, 2, 5, 6)))]
    (found,) = train_test_overlap(splits("viper"), trained_on)
    assert found == (
        "the model was trained on 1 of the 2 people of queries and 2 of the 3 people of the "
        "gallery (such as 5, 6), in viper:split=3: the scores are too good"
    )


@pytest.mark.parametrize(
    "trained_on",
    [
        [],
        [describe_training(splits())],  # the same partition, as it should be
        [describe_training(splits("x:split=1", train=(0, 1, 2, 7)))],  # 0 is nobody
        [describe_training(splits("y", train=(4, 5)))],  # other people of the same numbers
        [describe_training(splits("x", train=(4, 5), same_numbering=False))],
    ],
)
def test_models_of_other_people_are_not_suspected(trained_on: list[dict[str, Any]]) -> None:
    assert train_test_overlap(splits(), trained_on) == []


def test_numbers_that_mean_others_in_training_are_not_compared() -> None:
    trained_on = [describe_training(splits("msmt17:val=true", train=(4, 5)))]
    assert train_test_overlap(splits("msmt17", same_numbering=False), trained_on) == []


@pytest.mark.parametrize("name", ["folder", "table:seed=1", "hf"])
def test_users_own_data_are_compared_where_they_are_the_same(name: str) -> None:
    shared = splits(name, train=(1, 4))
    assert train_test_overlap(splits(name), [describe_training(shared)]) == []
    (found,) = train_test_overlap(shared, [describe_training(shared)])
    assert "(such as 4)" in found


def test_a_model_that_does_not_say_on_whom_it_was_trained_is_told_of() -> None:
    older = splits("viper:split=3", train=(4, 5)).describe()
    (found,) = train_test_overlap(splits("viper"), [older])
    assert "trained on viper:split=3 and does not say on whom" in found
    own = splits("viper:split=3", train=(1, 2))
    assert train_test_overlap(own, [own.describe()]) == []


# Queries that do not count


def test_the_same_people_are_recognised_whatever_their_images() -> None:
    def described(name: str, *train: int) -> list[dict[str, Any]]:
        return [describe_training(splits(name, train=train))]

    now = described("x:split=1", 1, 2, 3)
    assert same_training_people(now, now)
    assert same_training_people(described("x:split=2", 3, 2, 2, 1), now)
    assert not same_training_people(described("x:split=1", 1, 2, 4), now)
    assert not same_training_people(described("y", 1, 2, 3, 3), now)
    assert not same_training_people([{"name": "x:split=1"}], now)
    assert not same_training_people([], [])
    # Labels follow the order of the data sets.
    other = described("y", 7)
    assert same_training_people(now + other, now + other)
    assert not same_training_people(other + now, now + other)
    assert not same_training_people(now, now + other)


@pytest.mark.parametrize("name", ["folder", "table", "hf:repo=x"])
def test_users_own_people_are_the_same_only_in_the_same_images(name: str) -> None:
    now = [describe_training(splits(name, train=(1, 2, 3)))]
    assert same_training_people(now, now)
    assert not same_training_people([describe_training(splits(name, train=(1, 2, 3, 3)))], now)


def test_queries_without_a_match_are_counted_by_reason() -> None:
    query = ids([1, 2, 3, 4], [1, 1, 1, 1])
    (found,) = queries_without_match(query, ids([1, 2, 2], [2, 1, 1]))
    assert found == (
        "3 of 4 queries do not count: the person of 2 is not in the gallery, the person of 1 is "
        "in the gallery only under the query's own camera"
    )
    assert queries_without_match(ids([1], [1]), ids([1], [2])) == []


def test_without_cameras_the_query_itself_is_the_reason() -> None:
    found = queries_without_match(ids([1, 2], [1, 2]), ids([1, 2, 2], [1, 2, 3]), has_cameras=False)
    assert found[0].endswith("the person of 1 is in the gallery only as the query itself")


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (([1, 2], [1, 1]), ([1, 2], [1, 1]), "all queries and gallery images are of camera 1"),
        (([1, 2], [1, 2]), ([1, 2], [1, 2]), "the person of 2 is in the gallery only under"),
        (([1, 2], [1, 2]), ([3, 3], [1, 2]), "the person of 2 is not in the gallery. Are these"),
        (([1, 2], [1, 1]), ([3, 3], [1, 1]), "the person of 2 is not in the gallery. Are these"),
        (([1, 2], [1, 1]), ([1, 3], [1, 2]), "of 1 is not in the gallery, the person of 1 is in"),
    ],
)
def test_the_error_of_a_test_without_matches_says_why(query, gallery, message) -> None:
    one = np.ones((2, 1))
    with pytest.raises(ValueError, match=f"no query has a match: .*{message}"):
        evaluate(one, *query, one, *gallery)


# Similarities


def crowd(seed: int, noise: float, common: float, size: int = 60, dim: int = 32) -> Embeddings:
    """Features of 12 people: what is theirs, noise, and what all have in common."""
    of_person = np.random.default_rng(0).normal(size=(12, dim))
    pids = np.arange(size) % 12
    own = of_person[pids] + noise * np.random.default_rng(seed).normal(size=(size, dim))
    return embeddings(own + common, pids, np.full(size, seed))


@pytest.mark.parametrize("common", [0.0, 5.0])
def test_features_that_tell_people_apart_are_not_suspected(common: float) -> None:
    # Also where all similarities are high, as of features before the neck.
    query, gallery = (crowd(seed, noise=0.5, common=common) for seed in (1, 2))
    assert collapsed_features(query, gallery) == []
    cosines = F.normalize(query.features, dim=1) @ F.normalize(gallery.features, dim=1).T
    assert bool(cosines.min() > 0.7) == (common == 5)


def test_features_that_are_alike_for_everybody_are_told_of() -> None:
    query, gallery = (crowd(seed, noise=30.0, common=200.0) for seed in (1, 2))
    (found,) = collapsed_features(query, gallery)
    assert "similarities crowd together: 98 % of the cosines" in found
    assert collapsed_features(query, gallery, metric="euclidean") == []
    low, high = re.search(r"between ([\d.]+) and ([\d.]+),", found).groups()
    assert 0.9 < float(low) < float(high) <= 1


@pytest.mark.parametrize(("noise", "separation", "warns"), [(2.5, 0.5, True), (1.4, 1.5, False)])
def test_crowded_features_are_told_of_where_people_are_less_than_a_deviation_apart(
    noise: float, separation: float, warns: bool
) -> None:
    query, gallery = (crowd(seed, noise=noise, common=20.0) for seed in (1, 2))
    q, g = (F.normalize(e.features.double(), dim=1).numpy() for e in (query, gallery))
    cosines, same = q @ g.T, query.pids[:, None] == gallery.pids
    low, high = np.quantile(cosines, [0.01, 0.99])
    assert high - low < 0.3
    matches, others = cosines[same], cosines[~same]
    deviation = np.sqrt((matches.var() + others.var()) / 2)
    assert (matches.mean() - others.mean()) / deviation == pytest.approx(separation, abs=0.1)
    assert bool(collapsed_features(query, gallery)) == warns


def test_collapsed_features_are_told_of() -> None:
    query, gallery = (crowd(seed, noise=0.0, common=0.0) for seed in (1, 2))
    point = [embeddings(np.ones((60, 32)), e.pids, e.camids) for e in (query, gallery)]
    assert len(collapsed_features(*point)) == 2
    direction = np.random.default_rng(3).normal(size=32)
    line = [
        embeddings(np.outer(np.linspace(-1, 1, 60), direction), e.pids, e.camids)
        for e in (query, gallery)
    ]
    (found,) = collapsed_features(*line)
    assert "hardly more than one direction (effective rank 1.0 of 32)" in found


def test_features_that_are_zero_are_counted() -> None:
    query, gallery = (crowd(seed, noise=0.5, common=0.0) for seed in (1, 2))
    gallery.features[[3, 8]] = 0
    (found,) = collapsed_features(query, gallery)
    assert found.startswith("0 of 60 query features and 2 of 60 gallery features are zero: ")
    assert collapsed_features(query, gallery, metric="euclidean") == []


def test_little_data_say_nothing() -> None:
    few = embeddings(np.ones((9, 32)), np.arange(9), np.ones(9))
    many = embeddings(np.ones((20, 32)), np.arange(20), np.ones(20))
    assert collapsed_features(few, many) == collapsed_features(many, few) == []


def test_the_effective_rank_is_the_exponential_of_the_entropy() -> None:
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 6)))
    spectrum = np.linalg.svd(features.numpy() - features.numpy().mean(0), compute_uv=False)
    expected = np.exp(scipy.stats.entropy(spectrum))
    assert effective_rank(features) == pytest.approx(expected)
    assert effective_rank(torch.ones(20, 6)) == 0
    balanced = torch.cat([torch.eye(5), -torch.eye(5)]).double()
    assert effective_rank(balanced) == pytest.approx(5)


def test_an_untrained_network_is_told_of() -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=0).eval()
    pixels = torch.rand(24, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = model(pixels).numpy()
    query, gallery = (embeddings(features[i::2], np.arange(12) % 4, [i] * 12) for i in range(2))
    assert "similarities crowd together" in collapsed_features(query, gallery)[0]


# All of it


def test_a_test_as_it_should_be_gives_no_warning() -> None:
    query, gallery = (crowd(seed, noise=0.5, common=0.0) for seed in (1, 2))
    assert diagnose(splits(), query, gallery, trained_on=[describe_training(splits())]) == []


def test_warnings_are_kept_in_the_report_and_logged_by_who_wants_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    query, gallery = images(1, 2, 3), images(1, 2, 4, camid=2)
    for image in [*query, *gallery]:
        (tmp_path / image.path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 32), (image.pid, 9, 0)).save(tmp_path / image.path)
    part = ReidSplits.from_images("x", tmp_path, query=query, gallery=gallery)
    protocol = Protocol((32, 16), "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    model = timm.create_model("test_resnet", num_classes=0)
    record = ModelRecord("net", trained_on=[{"name": "x:split=1", "train_pids": "2..3"}])
    report = evaluate_dataset(model, part, protocol, record, compute=Compute(num_workers=0))
    assert not caplog.records
    found = report.warnings
    assert len(found) == 2
    assert (
        "trained on 2 of the 3 people of queries and 1 of the 3 people of the gallery" in found[0]
    )
    assert found[1] == "1 of 3 queries do not count: the person of 1 is not in the gallery"
    log_warnings([report])
    assert caplog.messages == [f"x: {text}" for text in found]


def test_warnings_of_partitions_are_logged_with_their_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    parts = [
        random_report(1, dataset={"name": f"viper:split={i}"}, warnings=("strange",))
        for i in range(2)
    ]
    log_warnings([average_reports(parts)])
    assert caplog.messages == ["viper:split=0: strange", "viper:split=1: strange"]
