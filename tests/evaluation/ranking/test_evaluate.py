from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import slow_reference
import torch
from sklearn.metrics import average_precision_score

from rga_timm.evaluation import ReidResult, Reranking, evaluate, k_reciprocal_rerank


def random_problem(
    seed: int, *, queries: int = 23, gallery: int = 150, dim: int = 8, people: int = 12
) -> tuple[np.ndarray, ...]:
    """Random features; person 0 is a distractor, the last two people have queries only."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(queries, dim)).astype(np.float32),
        rng.integers(1, people + 2, queries),
        rng.integers(1, 4, queries),
        rng.normal(size=(gallery, dim)).astype(np.float32),
        rng.integers(0, people, gallery),
        rng.integers(1, 4, gallery),
    )


def slow_result(problem: tuple[np.ndarray, ...], metric: str, max_rank: int) -> dict[str, Any]:
    query, query_pids, query_camids, gallery, gallery_pids, gallery_camids = problem
    dist = slow_reference.distances(query, gallery, metric).astype(np.float32)
    rankings = slow_reference.rank(dist, query_pids, query_camids, gallery_pids, gallery_camids)
    return slow_reference.summary(rankings, max_rank)


def assert_equals_reference(result: ReidResult, reference: dict[str, Any]) -> None:
    for name, value in reference.items():
        np.testing.assert_allclose(getattr(result, name), value, rtol=1e-12, err_msg=name)


def assert_identical(a: ReidResult, b: ReidResult) -> None:
    for name in vars(a):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_slow_loop(seed: int, metric: str) -> None:
    problem = random_problem(seed)
    result = evaluate(*problem, metric=metric, max_rank=20)
    assert_equals_reference(result, slow_result(problem, metric, max_rank=20))
    assert 0 < result.num_valid_queries < len(problem[0])


def tied_problem(seed: int) -> tuple[np.ndarray, ...]:
    """One-hot vectors of a few lengths: distances of few values, exact in any precision."""
    rng = np.random.default_rng(seed)
    _, *query_ids, _, gallery_pids, gallery_camids = random_problem(seed)
    query = np.eye(4)[rng.integers(0, 4, 23)] * rng.integers(1, 3, (23, 1))
    gallery = np.eye(4)[rng.integers(0, 4, 150)] * rng.integers(1, 3, (150, 1))
    return (query, *query_ids, gallery, gallery_pids, gallery_camids)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(5))
def test_images_at_the_same_distance_are_found_together(seed: int, metric: str) -> None:
    problem = tied_problem(seed)
    result = evaluate(*problem, metric=metric)
    assert_equals_reference(result, slow_result(problem, metric, max_rank=50))


def shuffled(problem: tuple[np.ndarray, ...], order: np.ndarray) -> tuple[np.ndarray, ...]:
    return (*problem[:3], *(part[order] for part in problem[3:]))


@pytest.mark.faults
@pytest.mark.parametrize("options", [{}, {"single_gallery_shot": True}])
def test_the_order_of_the_gallery_does_not_matter(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    problem = tied_problem(0)
    collapsed = (np.ones_like(problem[0]), *problem[1:3], np.ones_like(problem[3]), *problem[4:])
    for each in (problem, collapsed):
        expected = evaluate(*each, **options)
        right_first = np.argsort(~np.isin(each[4], each[1]), kind="stable")
        for order in (right_first, right_first[::-1], rng.permutation(150)):
            assert_identical(evaluate(*shuffled(each, order), **options), expected)


@pytest.mark.faults
def test_a_network_whose_features_are_all_equal_finds_nobody() -> None:
    gallery = torch.ones(5, 3)
    for pids in ([7, 7, 1, 2, 3], [1, 2, 3, 7, 7]):
        result = evaluate(torch.ones(1, 3), [7], [1], gallery, pids, [2, 2, 2, 2, 2])
        # The share of right images, as anywhere in a random order; the wrong ones come first.
        assert result.mAP == result.mINP == pytest.approx(2 / 5)
        assert result.mAP_trapezoid == pytest.approx((1 + 2 / 5) / 2)
        assert result.first_match_rank.tolist() == [4]
        assert result.cmc[:4].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_copies_tie_wherever_they_lie_in_the_gallery(metric: str) -> None:
    # Every gallery image is there many times, wherever the matrix product rounds which copy how.
    rng = np.random.default_rng(0)
    base = rng.normal(size=(7, 515)).astype(np.float32)
    query = base + rng.normal(size=base.shape).astype(np.float32) * 1e-3
    query[0] = base[0]
    gallery = np.tile(base, (31, 1))
    gallery_pids = np.arange(len(gallery)) + 100
    gallery_pids[:7] = np.arange(7)  # the right person is always the first copy
    cameras = np.full(len(gallery), 2)
    result = evaluate(query, np.arange(7), [1] * 7, gallery, gallery_pids, cameras, metric=metric)
    assert result.first_match_rank.tolist() == [31] * 7


def test_worked_by_hand() -> None:
    # On a line, nearest first: wrong, right, (same camera: dropped), wrong, right.
    gallery = [[1.0], [2.0], [3.0], [4.0], [5.0]]
    pids, camids = [8, 9, 9, 0, 9], [1, 2, 1, 2, 3]
    result = evaluate(
        np.zeros((1, 1)), [9], [1], np.array(gallery), pids, camids, metric="euclidean", max_rank=4
    )
    assert result.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert result.mAP_trapezoid == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    assert result.mINP == pytest.approx(2 / 4)
    assert result.cmc.tolist() == [0, 1, 1, 1]
    assert result.num_valid_queries == 1
    assert result.first_match_rank.tolist() == [2]


@pytest.mark.parametrize("problem", [random_problem(3), tied_problem(3)], ids=["distinct", "ties"])
def test_step_ap_equals_scikit_learn(problem: tuple[np.ndarray, ...]) -> None:
    query, query_pids, query_camids, gallery, gallery_pids, gallery_camids = problem
    result = evaluate(query, query_pids, query_camids, gallery, gallery_pids, gallery_camids)
    dist = slow_reference.distances(query, gallery, "cosine").astype(np.float32)
    for q, pid in enumerate(query_pids):
        kept = ~((gallery_pids == pid) & (gallery_camids == query_camids[q]))
        is_match = (gallery_pids == pid)[kept]
        if is_match.any():
            expected = average_precision_score(is_match, -dist[q][kept])
            assert result.average_precision[q] == pytest.approx(expected, rel=1e-12)
        else:
            assert np.isnan(result.average_precision[q])


def test_the_scores_are_means_of_the_queries_own() -> None:
    result = evaluate(*random_problem(4))
    counted = result.first_match_rank > 0
    assert 0 < counted.sum() < len(counted)
    for score, of_query in (
        ("mAP", result.average_precision),
        ("mAP_trapezoid", result.average_precision_trapezoid),
        ("mINP", result.inverse_negative_penalty),
    ):
        np.testing.assert_array_equal(np.isnan(of_query), ~counted)
        assert getattr(result, score) == pytest.approx(of_query[counted].mean(), rel=1e-12)


def test_only_same_person_and_same_camera_is_left_out() -> None:
    # Nearest first: same person same camera; other person same camera; the match.
    gallery = np.array([[0.0], [1.0], [2.0]])
    result = evaluate(np.zeros((1, 1)), [5], [1], gallery, [5, 6, 5], [1, 1, 2], metric="euclidean")
    assert result.first_match_rank.tolist() == [2]


def test_distractors_of_person_0_count_as_wrong_answers() -> None:
    gallery = np.array([[1.0], [2.0], [3.0]])
    ids = [0, 0, 5], [1, 2, 2]
    result = evaluate(np.zeros((1, 1)), [5], [1], gallery, *ids, metric="euclidean")
    assert result.first_match_rank.tolist() == [3]


def test_queries_without_a_match_do_not_count() -> None:
    # Person 1 is found at once; person 2 only under its own camera; person 3 nowhere.
    query = np.array([[0.0], [0.0], [0.0]])
    gallery = np.array([[0.0], [1.0]])
    result = evaluate(query, [1, 2, 3], [1, 1, 1], gallery, [1, 2], [2, 1], metric="euclidean")
    assert result.num_valid_queries == 1
    assert result.mAP == result.mAP_trapezoid == result.mINP == result.cmc[0] == 1
    assert result.first_match_rank.tolist() == [1, -1, -1]
    np.testing.assert_array_equal(result.average_precision, [1, np.nan, np.nan])


def test_cmc_has_its_length_even_over_a_small_gallery() -> None:
    result = evaluate(np.ones((1, 1)), [1], [1], np.ones((2, 1)), [2, 1], [2, 2], max_rank=5)
    assert result.cmc.tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("rerank", [None, {"k1": 8, "k2": 3}])
def test_tile_size_does_not_change_the_result(rerank: dict[str, int] | None) -> None:
    problem = random_problem(1, queries=61, gallery=333, dim=67)
    whole = evaluate(*problem, rerank=rerank, tile_memory=2**28)
    for tile_memory in (1, 30_000, 70_000, 300_000):
        assert_identical(evaluate(*problem, rerank=rerank, tile_memory=tile_memory), whole)


def test_arrays_tensors_and_lists_give_the_same() -> None:
    problem = random_problem(2)
    expected = evaluate(*problem)
    assert_identical(evaluate(*(torch.from_numpy(part) for part in problem)), expected)
    query, query_pids, query_camids, gallery, gallery_pids, gallery_camids = problem
    lists = (query_pids.tolist(), query_camids.tolist())
    assert_identical(
        evaluate(query, *lists, torch.from_numpy(gallery), gallery_pids, gallery_camids), expected
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_of_the_features_is_that_of_their_values_only(dtype: torch.dtype) -> None:
    query, query_pids, query_camids, gallery, gallery_pids, gallery_camids = random_problem(4)
    low_query, low_gallery = (torch.from_numpy(x).to(dtype) for x in (query, gallery))
    low = evaluate(low_query, query_pids, query_camids, low_gallery, gallery_pids, gallery_camids)
    values = low_query.float(), low_gallery.float()
    full = evaluate(values[0], query_pids, query_camids, values[1], gallery_pids, gallery_camids)
    assert_identical(low, full)


def test_large_offsets_do_not_drown_euclidean_distances() -> None:
    problem = random_problem(5)
    moved = (problem[0] + 1000, *problem[1:3], problem[3] + 1000, *problem[4:])
    result = evaluate(*moved, metric="euclidean")
    assert_equals_reference(result, slow_result(moved, "euclidean", max_rank=50))


def test_cosine_ignores_lengths_and_euclidean_does_not() -> None:
    problem = random_problem(6)
    lengths = 2.0 ** (np.arange(150) % 5)[:, None]
    scaled = (*problem[:3], problem[3] * lengths, *problem[4:])
    assert_identical(evaluate(*scaled), evaluate(*problem))
    euclidean = evaluate(*scaled, metric="euclidean").mAP
    assert euclidean != evaluate(*problem, metric="euclidean").mAP


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_reranking_ranks_by_the_reranked_distances(metric: str) -> None:
    problem = random_problem(7)
    query, query_pids, query_camids, gallery, gallery_pids, gallery_camids = problem
    if metric == "cosine":
        query, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery))
    dist = k_reciprocal_rerank(query, gallery, k1=6, k2=2, lambda_value=0.4)
    rankings = slow_reference.rank(dist, query_pids, query_camids, gallery_pids, gallery_camids)
    result = evaluate(*problem, metric=metric, rerank=Reranking(6, 2, 0.4))
    assert_equals_reference(result, slow_reference.summary(rankings, 50))
    assert_identical(evaluate(*problem, metric=metric, rerank=vars(Reranking(6, 2, 0.4))), result)


def broken(problem: tuple[Any, ...], **changes: Any) -> dict[str, Any]:
    names = ("query_features", "query_pids", "query_camids")
    names += ("gallery_features", "gallery_pids", "gallery_camids")
    return {**dict(zip(names, problem, strict=True)), **changes}


def nan_in(features: np.ndarray, rows: int) -> np.ndarray:
    features = features.copy()
    features[:rows, 1] = np.nan
    return features


PROBLEM = random_problem(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_features": np.ones(23)}, r"query features must be \(n, D\)"),
        ({"gallery_features": np.ones((150, 9))}, "differ in width: 8 and 9"),
        ({"query_features": np.ones((0, 8))}, "query features are empty"),
        ({"gallery_features": nan_in(PROBLEM[3], 3)}, "3 of 150 rows of the gallery"),
        ({"query_features": np.full((23, 8), np.inf)}, "23 of 23 rows of the query"),
        ({"query_pids": PROBLEM[1][:-1]}, r"query_pids must have shape \(23,\)"),
        ({"gallery_camids": PROBLEM[5][:, None]}, "gallery_camids must have shape"),
        ({"gallery_pids": PROBLEM[4] + 0.5}, "gallery_pids must be integers"),
        ({"gallery_pids": PROBLEM[4] + 100}, "no query has a match"),
        ({"metric": "l2"}, "metric must be one of cosine, euclidean, got 'l2'"),
        ({"max_rank": 0}, "must be positive"),
        ({"tile_memory": 0}, "must be positive"),
        ({"rerank": {"k1": 0}}, "k1 and k2 must be at least 1"),
        ({"rerank": {"k1": 173}}, "173"),
    ],
)
def test_wrong_input_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(**broken(PROBLEM, **changes))


def test_a_reranking_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(TypeError, match="rerank must be None, a Reranking or a dict, got bool"):
        evaluate(**broken(PROBLEM, rerank=True))


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e-24, 1e20, 1e160, 1e300])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("options", [{}, {"single_gallery_shot": True}, {"rerank": {"k1": 6}}])
def test_extreme_lengths_change_nothing(options: dict[str, Any], metric: str, scale: float) -> None:
    problem = random_problem(8)
    query, gallery = problem[0].astype(np.float64), problem[3].astype(np.float64)
    scaled = (query * scale, *problem[1:3], gallery * scale, *problem[4:])
    expected = evaluate(query, *problem[1:3], gallery, *problem[4:], metric=metric, **options)
    result = evaluate(*scaled, metric=metric, **options)
    for name, value in vars(expected).items():
        np.testing.assert_allclose(getattr(result, name), value, rtol=1e-12, err_msg=name)


def test_arrays_may_lie_as_they_like() -> None:
    query, query_pids, query_camids, gallery, gallery_pids, gallery_camids = random_problem(2)
    expected = evaluate(query, query_pids, query_camids, gallery, gallery_pids, gallery_camids)
    read_only = gallery.copy()
    read_only.flags.writeable = False
    others = [
        (query[::-1][::-1], gallery[:, ::-1][:, ::-1]),
        (np.asfortranarray(query), np.repeat(gallery, 2, axis=1)[:, ::2]),
        (query.astype(">f4"), read_only),
        (query.astype(np.longdouble), gallery.astype(np.float64)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for q, g in others:
            assert_identical(
                evaluate(q, query_pids, query_camids, g, gallery_pids, gallery_camids), expected
            )
    flipped = evaluate(
        query[:, ::-1], query_pids, query_camids, gallery[:, ::-1], gallery_pids, gallery_camids
    )
    np.testing.assert_allclose(flipped.average_precision, expected.average_precision)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"query_features": PROBLEM[0] + 1j}, ValueError, "must be real numbers, got complex"),
        ({"query_features": torch.ones(23, 8) * 1j}, ValueError, "must be real numbers"),
        ({"query_features": PROBLEM[0].astype(str)}, ValueError, "must be real numbers"),
        (
            {"query_pids": np.full(23, 2**64 - 1, dtype=np.uint64)},
            ValueError,
            r"query_pids must be below 2\^63",
        ),
        (
            {"query_pids": torch.ones(23, requires_grad=True)},
            ValueError,
            "query_pids must be integers",
        ),
        ({"tile_memory": 1e6}, TypeError, "tile_memory must be a whole number, got 1000000.0"),
        ({"rerank": {"k1": 20.0}}, TypeError, "k1 must be a whole number"),
        ({"rerank": {"k": 3}}, TypeError, "unexpected keyword argument 'k'"),
        ({"expand": {"k": 2.5}}, TypeError, "k must be a whole number"),
    ],
)
def test_values_of_wrong_types_are_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(**broken(PROBLEM, **changes))
