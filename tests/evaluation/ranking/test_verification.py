from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import slow_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from rga_timm.evaluation import k_reciprocal_rerank, verify

Problem = tuple[np.ndarray, ...]


def random_problem(
    seed: int, Q: int = 30, G: int = 200, people: int = 12, noise: float = 1.0
) -> Problem:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, 5))
    q_pids, g_pids = rng.integers(0, people, Q), rng.integers(0, people, G)
    return (
        centres[q_pids] + noise * rng.normal(size=(Q, 5)),
        q_pids,
        rng.integers(0, 3, Q),
        centres[g_pids] + noise * rng.normal(size=(G, 5)),
        g_pids,
        rng.integers(0, 3, G),
    )


def pairs_of(problem: Problem, dist: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of genuine and of impostor pairs."""
    _, q_pids, q_camids, _, g_pids, g_camids = problem
    same_person = q_pids[:, None] == g_pids
    same_camera = q_camids[:, None] == g_camids
    return dist[same_person & ~same_camera], dist[~same_person]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_sorting_all_pairs(seed: int, metric: str) -> None:
    problem = random_problem(seed)
    fprs = [0, 1e-3, 0.01, 0.1, 0.5, 1]
    result = verify(*problem, fprs=fprs, metric=metric)
    dist = slow_reference.distances(problem[0], problem[3], metric)
    genuine, impostor = pairs_of(problem, dist if metric == "cosine" else dist**2)
    assert (result.num_genuine, result.num_impostor) == (len(genuine), len(impostor))
    ordered = np.sort(impostor)
    for point, fpr in zip(result.points, fprs, strict=True):
        k = int(fpr * len(impostor))
        threshold = ordered[k] if k < len(ordered) else np.inf
        assert point.threshold == pytest.approx(threshold, rel=1e-6)
        assert point.fpr == k / len(impostor)
        assert point.tpr == np.mean(genuine < threshold)
        assert point.target_fpr == fpr


def test_lies_on_scikit_learns_roc_curve() -> None:
    problem = random_problem(7)
    dist = slow_reference.distances(problem[0], problem[3], "cosine")
    genuine, impostor = pairs_of(problem, dist)
    is_genuine = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    fpr, tpr, _ = roc_curve(is_genuine, -np.r_[genuine, impostor], drop_intermediate=False)
    for point in verify(*problem, fprs=[0.003, 0.03, 0.3]).points:
        # The best point of the curve that is not beyond the target.
        last = np.flatnonzero(fpr <= point.target_fpr)[-1]
        assert point.fpr == pytest.approx(fpr[last])
        assert point.tpr == pytest.approx(tpr[last])


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    fpr=st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.99, 1.0]),
    places=st.integers(1, 4),
)
def test_ties_are_accepted_all_or_not_at_all(seed: int, fpr: float, places: int) -> None:
    rng = np.random.default_rng(seed)
    query = rng.integers(0, places, (6, 2)).astype(np.float32)
    gallery = rng.integers(0, places, (40, 2)).astype(np.float32)
    ids = [rng.integers(0, 3, n) for n in (6, 6, 40, 40)]
    problem = (query, *ids[:2], gallery, *ids[2:])
    dist = ((query[:, None] - gallery[None]) ** 2).sum(-1)
    genuine, impostor = pairs_of(problem, dist)
    if not len(genuine) or not len(impostor):
        with pytest.raises(ValueError, match="both are needed"):
            verify(*problem, fprs=[fpr], metric="euclidean")
        return
    (point,) = verify(*problem, fprs=[fpr], metric="euclidean").points
    # Of all thresholds, the largest share of impostors that the target allows.
    shares = [np.mean(impostor < t) for t in [*np.unique(impostor), np.inf]]
    assert point.fpr == max(share for share in shares if share <= fpr + 1e-12)
    assert point.fpr == np.mean(impostor < point.threshold)
    assert point.tpr == np.mean(genuine < point.threshold)


def test_reranked_distances_are_verified_too() -> None:
    problem = random_problem(2)
    query, gallery = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (problem[0], problem[3])
    )
    genuine, impostor = pairs_of(problem, k_reciprocal_rerank(query, gallery, k1=8, k2=3))
    (point,) = verify(*problem, fprs=[0.05], rerank={"k1": 8, "k2": 3}).points
    assert point.threshold == pytest.approx(np.sort(impostor)[int(0.05 * len(impostor))], abs=1e-6)
    assert point.tpr == pytest.approx(np.mean(genuine < point.threshold))


def test_memory_does_not_change_the_result() -> None:
    problem = random_problem(3)
    whole = verify(*problem)
    for tile_memory in (1, 50_000):
        assert verify(*problem, tile_memory=tile_memory) == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fprs": []}, "false positive rates lie in"),
        ({"fprs": [1.5]}, r"lie in 0 ... 1, got \[1.5\]"),
        ({"fprs": [float("nan")]}, "lie in"),
        ({"metric": "l1"}, "metric must be one of"),
        ({"tile_memory": 0}, "must be positive"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(*random_problem(0), **options)


@pytest.mark.parametrize("options", [{}, {"lambda_value": 0.0}])
def test_copies_are_never_at_a_negative_reranked_distance(options: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    pids, cameras = np.arange(90) % 9, rng.integers(0, 2, 90)
    features = rng.normal(size=(9, 6))[pids]
    problem = (features[:20], pids[:20], cameras[:20], features[20:], pids[20:], cameras[20:])
    rerank = {"k1": 8, "k2": 6, **options}
    assert k_reciprocal_rerank(features[:20], features[20:], **rerank).min() >= 0
    (point,) = verify(*problem, fprs=[0.1], rerank=rerank).points
    assert point.tpr == 1


def test_a_rate_that_is_met_exactly_counts_as_met() -> None:
    # One genuine pair and a hundred impostors: 29 % of them are 29, though 0.29 * 100 < 29.
    gallery = np.arange(101.0)[:, None]
    ids = ([0], [0], gallery, np.arange(101) % 101, np.ones(101, dtype=int))
    fprs = np.array([0.07, 0.29, 0.57, 0.58])
    points = verify(np.full((1, 1), -1.0), *ids, fprs=fprs, metric="euclidean").points
    assert [point.fpr for point in points] == fprs.tolist()
    assert (
        verify(np.full((1, 1), -1.0), *ids, fprs=(f for f in fprs), metric="euclidean").points
        == points
    )


def test_thresholds_of_scaled_features_are_in_the_features_own_units() -> None:
    problem = random_problem(4)
    (point,) = verify(*problem, fprs=[0.1], metric="euclidean").points
    scaled = (problem[0] * 2.0**80, *problem[1:3], problem[3] * 2.0**80, *problem[4:])
    (large,) = verify(*scaled, fprs=[0.1], metric="euclidean").points
    assert large.threshold == point.threshold * 4.0**80
    assert (large.tpr, large.fpr) == (point.tpr, point.fpr)
