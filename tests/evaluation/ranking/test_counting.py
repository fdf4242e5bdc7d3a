from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rga_timm.evaluation.ranking.counting import GalleryIndex, MatchRanks, rank_matches


def slow_ranks(
    distances: np.ndarray, is_match: np.ndarray, is_left_out: np.ndarray
) -> tuple[list[int], list[int]]:
    ranks, counts = [], []
    for row, matches, left_out in zip(distances, is_match, is_left_out, strict=True):
        seen = [i for i in np.argsort(row, kind="stable") if not left_out[i]]
        mine = [rank for rank, i in enumerate(seen) if matches[i]]
        ranks += mine
        counts.append(len(mine))
    return ranks, counts


def random_tile(seed: int, T: int, G: int, people: int, places: int) -> tuple[np.ndarray, ...]:
    """Distances of few values, so that many tie; pids and camids of T queries and G images."""
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, places, (T, G)).astype(np.float32) / 8
    return (
        distances,
        rng.integers(0, people, T),
        rng.integers(0, 2, T),
        rng.integers(0, people, G),
        rng.integers(0, 2, G),
    )


@settings(max_examples=500, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    T=st.integers(1, 6),
    G=st.integers(1, 40),
    people=st.integers(1, 8),
    places=st.sampled_from([1, 3, 20, 1000]),
    noise=st.sampled_from([1e-9, 0.06, 0.3, 10.0]),
)
def test_equals_sorting_however_uncertain_the_scores_are(
    seed: int, T: int, G: int, people: int, places: int, noise: float
) -> None:
    distances, pids, camids, gallery_pids, gallery_camids = random_tile(seed, T, G, people, places)
    # Scores that are wrong by up to noise / 2 each.
    wrong = np.random.default_rng(seed + 1).uniform(-noise / 2, noise / 2, distances.shape)
    scores = (-distances + wrong * (noise > 1e-9)).astype(np.float32)
    pairs = GalleryIndex(gallery_pids, gallery_camids).same_person(pids, camids)
    result = rank_matches(
        scores,
        np.full(T, noise * 1.001 + 1e-6 * (noise > 1e-9)),
        pairs,
        lambda rows, columns: distances[rows, columns],
        max_exact=10**9,
    )
    assert result is not None
    same_person = pids[:, None] == gallery_pids
    same_camera = camids[:, None] == gallery_camids
    ranks, counts = slow_ranks(distances, same_person & ~same_camera, same_person & same_camera)
    assert result.ranks.tolist() == ranks
    assert result.counts.tolist() == counts


def test_gives_up_where_too_many_are_too_close_to_call() -> None:
    distances, pids, camids, gallery_pids, gallery_camids = random_tile(0, 5, 30, 3, 20)
    pairs = GalleryIndex(gallery_pids, gallery_camids).same_person(pids, camids)
    looked_at = 0

    def exact(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        nonlocal looked_at
        looked_at += len(rows)
        return distances[rows, columns]

    assert rank_matches(-distances, np.ones(5), pairs, exact, max_exact=10) is None
    assert looked_at == 0
    assert rank_matches(-distances, np.ones(5), pairs, exact, max_exact=1000) is not None
    assert 10 < looked_at <= 5 * 30


def test_clear_scores_need_no_second_look() -> None:
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(50, dtype=np.float32), (4, 1)), axis=1)
    pids, camids = np.array([1, 2, 1, 9]), np.zeros(4, dtype=int)
    pairs = GalleryIndex(rng.integers(1, 4, 50), np.ones(50, dtype=int)).same_person(pids, camids)
    result = rank_matches(scores, np.full(4, 0.5), pairs, lambda *_: pytest.fail("looked"), 0)
    assert result is not None
    assert result.counts[3] == 0


def test_the_index_finds_the_pairs_that_a_comparison_of_all_finds() -> None:
    _, pids, camids, gallery_pids, gallery_camids = random_tile(3, 20, 70, 9, 2)
    pids[4] = 100  # nobody
    pairs = GalleryIndex(gallery_pids, gallery_camids).same_person(pids, camids)
    rows, columns = np.nonzero(pids[:, None] == gallery_pids)
    np.testing.assert_array_equal(pairs.rows, rows)
    np.testing.assert_array_equal(pairs.columns, columns)
    np.testing.assert_array_equal(pairs.same_camera, camids[rows] == gallery_camids[columns])
    part = pairs.of_rows(slice(5, 12))
    again = GalleryIndex(gallery_pids, gallery_camids).same_person(pids[5:12], camids[5:12])
    for mine, theirs in zip(part, again, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_joined_ranks_are_one_after_the_other() -> None:
    parts = [
        MatchRanks(np.array([0, 4]), np.array([2, 0])),
        MatchRanks(np.array([3]), np.array([1])),
    ]
    joined = MatchRanks.joined(parts)
    assert joined.ranks.tolist() == [0, 4, 3]
    assert joined.counts.tolist() == [2, 0, 1]
    assert MatchRanks.joined([]).counts.tolist() == []
