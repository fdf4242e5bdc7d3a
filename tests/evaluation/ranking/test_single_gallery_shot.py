from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import slow_reference

from rga_timm.evaluation import Reranking, evaluate, k_reciprocal_rerank

Problem = tuple[np.ndarray, ...]


def random_problem(
    seed: int, *, queries: int = 12, gallery: int = 13, people: int = 5, dim: int = 4
) -> Problem:
    """Random features; person 0 is a distractor, the last person has queries only."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(queries, dim)),
        rng.integers(1, people + 1, queries),
        rng.integers(1, 4, queries),
        rng.normal(size=(gallery, dim)),
        rng.permutation(np.arange(gallery) % people),
        rng.integers(1, 4, gallery),
    )


def images_left(dist: np.ndarray, problem: Problem) -> list[tuple[int, dict[int, list[int]]]]:
    """Of each query its person, and by person the places in its ranking of the images left."""
    _, query_pids, query_camids, _, gallery_pids, gallery_camids = problem
    result = []
    for q in range(len(dist)):
        left: dict[int, list[int]] = {}
        for place, g in enumerate(np.argsort(dist[q], kind="stable")):
            if gallery_pids[g] != query_pids[q] or gallery_camids[g] != query_camids[q]:
                left.setdefault(int(gallery_pids[g]), []).append(place)
        result.append((int(query_pids[q]), left))
    return [(pid, left) for pid, left in result if pid in left]


def hits(pid: int, left: dict[int, list[int]], draw: tuple[int, ...], max_rank: int) -> np.ndarray:
    """Whether the right person is among the nearest 1 ... max_rank of a draw, one of each."""
    drawn = dict(zip(left, draw, strict=True))
    rank = sum(place < drawn[pid] for place in draw)
    return np.arange(max_rank) >= rank


def all_draws(dist: np.ndarray, problem: Problem, max_rank: int) -> np.ndarray:
    """The mean over every possible gallery of every query."""
    curves = [
        np.mean([hits(pid, left, draw, max_rank) for draw in product(*left.values())], axis=0)
        for pid, left in images_left(dist, problem)
    ]
    return np.mean(curves, axis=0)


def shot(problem: Problem, **options: Any) -> Any:
    return evaluate(*problem, single_gallery_shot=True, **options)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(6))
def test_the_cmc_is_the_mean_over_every_possible_draw(seed: int, metric: str) -> None:
    problem = random_problem(seed)
    dist = slow_reference.distances(problem[0], problem[3], metric)
    for max_rank in (1, 3, 8):  # less and more than there are people
        expected = all_draws(dist, problem, max_rank)
        result = shot(problem, metric=metric, max_rank=max_rank)
        np.testing.assert_allclose(result.cmc, expected, rtol=1e-12)
    whole_gallery = evaluate(*problem, metric=metric, max_rank=8)
    assert 0 < result.num_valid_queries < len(dist)
    assert not np.allclose(result.cmc, whole_gallery.cmc)


def test_random_draws_come_near_it() -> None:
    # As the usual codes do it, but with 400 draws a query.
    problem = random_problem(0, queries=40, gallery=200, people=30)
    dist = slow_reference.distances(problem[0], problem[3], "cosine")
    rng = np.random.default_rng(1)
    curves = []
    for pid, left in images_left(dist, problem):
        for _ in range(400):
            draw = tuple(int(rng.choice(places)) for places in left.values())
            curves.append(hits(pid, left, draw, 20))
    np.testing.assert_allclose(shot(problem, max_rank=20).cmc, np.mean(curves, axis=0), atol=0.01)


def test_worked_by_hand() -> None:
    # On a line, nearest first: wrong person, right person, wrong person again. Half of the draws
    # show the wrong person's nearer image.
    gallery = np.array([[1.0], [2.0], [3.0]])
    problem = (np.zeros((1, 1)), [5], [1], gallery, [6, 5, 6], [1, 2, 2])
    assert shot(problem, metric="euclidean", max_rank=3).cmc.tolist() == [0.5, 1, 1]
    # Two right images, each drawn half of the time: behind one wrong person, or behind two.
    gallery = np.array([[1.0], [2.0], [3.0], [4.0]])
    problem = (np.zeros((1, 1)), [5], [1], gallery, [6, 5, 7, 5], [1, 2, 2, 2])
    assert shot(problem, metric="euclidean", max_rank=3).cmc.tolist() == [0, 0.5, 1]


def test_images_of_the_query_under_its_own_camera_are_not_drawn() -> None:
    gallery = np.array([[0.0], [1.0], [2.0]])
    problem = (np.zeros((1, 1)), [5], [1], gallery, [5, 6, 5], [1, 1, 2])
    assert shot(problem, metric="euclidean", max_rank=2).cmc.tolist() == [0, 1]


def test_copies_of_others_count_as_nearer() -> None:
    problem = (np.ones((1, 2)), [7], [1], np.ones((4, 2)), [1, 7, 1, 7], [2] * 4)
    assert shot(problem, max_rank=2).cmc.tolist() == [0, 1]
    # One of two images of person 1 is a copy: it is drawn half of the time.
    gallery = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    problem = (np.ones((1, 2)), [7], [1], gallery, [7, 1, 1], [2] * 3)
    assert shot(problem, max_rank=2).cmc.tolist() == [0.5, 1]


def test_with_one_image_of_each_person_it_is_the_usual_cmc() -> None:
    query, query_pids, query_camids, gallery, *_ = random_problem(2, queries=30, gallery=40)
    problem = (query, query_pids, query_camids, gallery, np.arange(40), np.full(40, 9))
    result = shot(problem)
    np.testing.assert_allclose(result.cmc, evaluate(*problem).cmc, rtol=1e-12)
    assert 0 < result.cmc[20] < 1


def test_all_other_scores_are_those_of_the_whole_gallery() -> None:
    problem = random_problem(3)
    result, whole_gallery = vars(shot(problem)), vars(evaluate(*problem))
    del result["cmc"], whole_gallery["cmc"]
    np.testing.assert_equal(result, whole_gallery)


def test_tile_size_does_not_change_the_result() -> None:
    problem = random_problem(4, queries=61, gallery=333, people=40, dim=67)
    whole = shot(problem, tile_memory=2**28).cmc
    for tile_memory in (1, 30_000, 70_000, 300_000):
        np.testing.assert_array_equal(shot(problem, tile_memory=tile_memory).cmc, whole)


def test_random_numbers_have_no_part_in_it() -> None:
    problem = random_problem(5)
    before = np.random.get_state()  # noqa: NPY002
    first = shot(problem).cmc
    np.testing.assert_array_equal(shot(problem).cmc, first)
    np.testing.assert_equal(np.random.get_state(), before)  # noqa: NPY002


def test_it_goes_with_reranking() -> None:
    problem = random_problem(6)
    dist = k_reciprocal_rerank(problem[0], problem[3], k1=4, k2=2, lambda_value=0.4)
    result = shot(problem, metric="euclidean", rerank=Reranking(4, 2, 0.4), max_rank=5)
    np.testing.assert_allclose(result.cmc, all_draws(dist, problem, 5), rtol=1e-12)
