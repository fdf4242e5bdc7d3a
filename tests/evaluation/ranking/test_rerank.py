from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import slow_reference
import torch

from rga_timm.evaluation import Reranking, evaluate, k_reciprocal_rerank
from rga_timm.evaluation.ranking import rerank
from rga_timm.evaluation.ranking.rerank import KReciprocal


def clustered(
    seed: int, *, queries: int = 15, gallery: int = 60, dim: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    """Points around few centres, so that reciprocal sets overlap and expand."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(8, dim))
    points = centres[rng.integers(0, 8, queries + gallery)]
    points = points + 0.4 * rng.normal(size=points.shape)
    return points[:queries], points[queries:]


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value"),
    [(20, 6, 0.3), (20, 1, 0.3), (7, 3, 0.3), (5, 2, 0.0), (1, 1, 0.5), (10, 15, 0.7), (74, 75, 0)],
)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_paper(seed: int, k1: int, k2: int, lambda_value: float) -> None:
    query, gallery = clustered(seed)
    actual = k_reciprocal_rerank(query, gallery, k1=k1, k2=k2, lambda_value=lambda_value)
    expected = slow_reference.zhong_rerank(query, gallery, k1, k2, lambda_value)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_equals_the_paper_on_features_without_structure() -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(10, 32)), rng.normal(size=(90, 32))
    actual = k_reciprocal_rerank(query, gallery)
    np.testing.assert_allclose(
        actual, slow_reference.zhong_rerank(query, gallery, 20, 6, 0.3), rtol=0, atol=1e-6
    )


def test_equals_the_paper_with_copies_among_the_images() -> None:
    rng = np.random.default_rng(0)
    points = rng.integers(0, 3, size=(60, 3))  # 27 places: exact distances, many ties
    actual = k_reciprocal_rerank(points[:10], points[10:], k1=9, k2=3)
    expected = slow_reference.zhong_rerank(points[:10], points[10:], 9, 3, 0.3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_lambda_1_keeps_the_original_order() -> None:
    query, gallery = clustered(0)
    actual = k_reciprocal_rerank(query, gallery, k1=5, lambda_value=1)
    original = slow_reference.distances(query, gallery, "euclidean")
    np.testing.assert_array_equal(actual.argsort(1), original.argsort(1))


def test_reranking_helps_on_clusters() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 10)
    points = rng.normal(size=(20, 8))[people] + 0.7 * rng.normal(size=(200, 8))
    is_query = np.arange(200) % 10 == 0

    def share_of_right_neighbours(dist: np.ndarray) -> float:
        nearest = people[~is_query][dist.argsort(1)[:, :9]]
        return float((nearest == people[is_query][:, None]).mean())

    before = slow_reference.distances(points[is_query], points[~is_query], "euclidean")
    after = k_reciprocal_rerank(points[is_query], points[~is_query], k1=10, k2=4)
    assert share_of_right_neighbours(after) > share_of_right_neighbours(before) + 0.02


@pytest.mark.parametrize("tile_memory", [1, 4000, 15_000, 20_000, 50_000])
def test_tile_size_does_not_change_the_result(tile_memory: int) -> None:
    query, gallery = clustered(1)
    np.testing.assert_array_equal(
        k_reciprocal_rerank(query, gallery, k1=8, tile_memory=tile_memory),
        k_reciprocal_rerank(query, gallery, k1=8),
    )


def test_identical_images_give_finite_distances() -> None:
    # More copies than k1: images fall out of their own neighbour lists.
    actual = k_reciprocal_rerank(np.ones((3, 4)), np.ones((30, 4)), k1=4, k2=2)
    assert np.isfinite(actual).all()


def test_arrays_give_an_array_and_tensors_a_tensor() -> None:
    query, gallery = (x.astype(np.float32) for x in clustered(2))
    array = k_reciprocal_rerank(query, gallery)
    tensor = k_reciprocal_rerank(torch.from_numpy(query), torch.from_numpy(gallery))
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    assert array.shape == (15, 60)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, tensor.numpy())


def test_half_precision_is_computed_in_full() -> None:
    query, gallery = (torch.from_numpy(x).half() for x in clustered(2))
    torch.testing.assert_close(
        k_reciprocal_rerank(query, gallery),
        k_reciprocal_rerank(query.float(), gallery.float()),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"k1": 75}, "k1 = 75 must be below, k2 = 6 at most, the 75 images"),
        ({"k2": 76}, "k2 = 76 at most"),
        ({"k1": 0}, "at least 1"),
        ({"k2": 0}, "at least 1"),
        ({"lambda_value": 1.1}, "lambda_value must lie in"),
        ({"lambda_value": float("nan")}, "lambda_value must lie in"),
        ({"tile_memory": 0}, "tile_memory must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        k_reciprocal_rerank(*clustered(0), **parameters)


def test_features_that_do_not_fit_are_refused() -> None:
    query, gallery = clustered(0)
    with pytest.raises(ValueError, match="differ in width: 6 and 5"):
        k_reciprocal_rerank(query, gallery[:, :5])
    with pytest.raises(ValueError, match="15 of 15 rows of the query features are not finite"):
        k_reciprocal_rerank(query + np.inf, gallery)


def test_defaults_are_the_papers_for_market1501() -> None:
    assert Reranking() == Reranking(k1=20, k2=6, lambda_value=0.3)


def test_evaluation_holds_a_tile_of_the_distances_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiles: list[int] = []
    whole = KReciprocal.__call__

    def spy(self: KReciprocal, tile: slice) -> np.ndarray:
        tiles.append(tile.stop - tile.start)
        return whole(self, tile)

    monkeypatch.setattr(KReciprocal, "__call__", spy)
    query, gallery = clustered(3, queries=40)
    ids = (np.arange(40) % 5, np.zeros(40, int), gallery, np.arange(60) % 5, np.ones(60, int))
    evaluate(query, *ids, rerank={"k1": 5}, tile_memory=60 * 8 * 7)
    assert sum(tiles) == 40
    assert max(tiles) <= 7


def test_says_what_memory_it_will_take_before_it_starts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank, "find_neighbours", lambda *_, **__: pytest.fail("started"))
    caplog.set_level("INFO", logger="rga_timm")
    with pytest.raises(pytest.fail.Exception, match="started"):
        k_reciprocal_rerank(*clustered(0), k1=7, tile_memory=3_000_000_000)
    assert caplog.messages == [
        "Re-ranking 15 x 60 images (k1 7, k2 6, lambda 0.3): about 3.0 GB of memory"
    ]


def test_the_estimate_grows_with_the_images_not_with_their_pairs() -> None:
    small, large = (Reranking().estimate_memory(n, 9 * n, 512, 0) for n in (1000, 10_000))
    assert large == pytest.approx(10 * small, rel=0.01)
