from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rga_timm.evaluation.ranking.counting import GalleryIndex, near_images


def slow_places(
    distances: np.ndarray, is_match: np.ndarray, is_left_out: np.ndarray
) -> list[list[list[int]]]:
    found = []
    for row, matches, left_out in zip(distances, is_match, is_left_out, strict=True):
        places = [
            [
                sum(~left_out & (row <= own)), sum(matches & (row <= own)),
                sum(~left_out & (row < own)), sum(matches & (row < own)),
            ]
            for own in sorted(row[matches])
        ]  # fmt: skip
        found.append(np.array(places, dtype=int).reshape(-1, 4).T.tolist())
    return found


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
)
def test_places_equal_those_of_comparing_all(
    seed: int, T: int, G: int, people: int, places: int
) -> None:
    distances, pids, camids, gallery_pids, gallery_camids = random_tile(seed, T, G, people, places)
    same_person = pids[:, None] == gallery_pids
    same_camera = camids[:, None] == gallery_camids
    expected = slow_places(distances, same_person & ~same_camera, same_person & same_camera)
    pairs = GalleryIndex(gallery_pids, gallery_camids).same_person(pids, camids)
    found = list(near_images(distances, pairs))
    assert [np.stack(near.places).tolist() for near in found] == expected


def test_negative_zeros_tie_with_zeros() -> None:
    distances = np.array([[0.0, -0.0, 0.0]], dtype=np.float32)
    pairs = GalleryIndex(np.array([1, 2, 1]), np.zeros(3, dtype=int)).same_person(
        np.array([2]), np.array([1])
    )
    (near,) = near_images(distances, pairs)
    assert [place.tolist() for place in near.places] == [[3], [1], [0], [0]]


def test_the_index_finds_the_pairs_that_a_comparison_of_all_finds() -> None:
    _, pids, camids, gallery_pids, gallery_camids = random_tile(3, 20, 70, 9, 2)
    pids[4] = 100  # nobody
    pairs = GalleryIndex(gallery_pids, gallery_camids).same_person(pids, camids)
    rows, columns = np.nonzero(pids[:, None] == gallery_pids)
    np.testing.assert_array_equal(pairs.rows, rows)
    np.testing.assert_array_equal(pairs.columns, columns)
    np.testing.assert_array_equal(pairs.same_camera, camids[rows] == gallery_camids[columns])
