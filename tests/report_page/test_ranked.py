import numpy as np
import pytest
import torch

from rga_timm.evaluation import Embeddings, evaluate
from rga_timm.report_page.ranked import rank_all


def make(count, seed, people=8, cameras=3, width=6):
    rng = np.random.default_rng(seed)
    pids = rng.integers(0, people, count)
    # Near enough to whose they are that some are found, and some are not.
    centres = np.random.default_rng(0).normal(size=(people, width))
    features = centres[pids] + rng.normal(size=(count, width))
    return Embeddings(torch.tensor(features).float(), pids, rng.integers(1, cameras + 1, count))


QUERY, GALLERY = make(300, 1), make(120, 2)


def slow_distance(q, g, metric):
    q, g = q.double(), g.double()
    if metric == "cosine":
        return 1 - float(q @ g / q.norm() / g.norm())
    return float((q - g).norm())


@pytest.fixture(scope="module", params=["cosine", "euclidean"])
def both(request):
    """What is made, and all distances by a slow loop."""
    distances = np.array(
        [[slow_distance(q, g, request.param) for g in GALLERY.features] for q in QUERY.features]
    )
    same = QUERY.pids[:, None] == GALLERY.pids
    left_out = same & (QUERY.camids[:, None] == GALLERY.camids)
    return rank_all(QUERY, GALLERY, metric=request.param, top=7), distances, same, left_out


def test_nearest_are_those_of_the_slow_loop_without_the_same_camera(both):
    ranked, distances, _, left_out = both
    expected = np.where(left_out, np.inf, distances)
    assert ranked.nearest.shape == (300, 7)
    rows = np.arange(300)[:, None]
    np.testing.assert_allclose(expected[rows, ranked.nearest], ranked.distances, atol=1e-5)
    np.testing.assert_allclose(np.sort(expected)[:, :7], ranked.distances, atol=1e-5)


def test_first_result_is_right_as_often_as_rank_1_says():
    ranked = rank_all(QUERY, GALLERY)
    result = evaluate(
        QUERY.features, QUERY.pids, QUERY.camids, GALLERY.features, GALLERY.pids, GALLERY.camids
    )
    right = GALLERY.pids[ranked.nearest[:, 0]] == QUERY.pids
    valid = result.first_match_rank > 0
    assert right[valid].mean() == pytest.approx(result.cmc[0])


def test_histograms_count_every_pair_once(both):
    ranked, distances, same, left_out = both
    assert ranked.same.sum() == (same & ~left_out).sum()
    assert ranked.different.sum() == (~same).sum()
    for counts, mask in ((ranked.same, same & ~left_out), (ranked.different, ~same)):
        expected, _ = np.histogram(distances[mask], ranked.edges)
        # A pair at the edge of a bin may be rounded into the next one.
        assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 3


def test_cameras_are_counted_as_by_a_slow_loop(both):
    ranked, distances, same, left_out = both
    assert ranked.camera_ids == [1, 2, 3]
    for i, own in enumerate(ranked.camera_ids):
        for j, other in enumerate(ranked.camera_ids):
            queries = hits = 0
            for q in np.flatnonzero(QUERY.camids == own):
                there = np.flatnonzero((GALLERY.camids == other) & ~left_out[q])
                if same[q, there].any():
                    queries += 1
                    hits += same[q, there[distances[q, there].argmin()]]
            assert (ranked.camera_queries[i, j], ranked.camera_hits[i, j]) == (queries, hits)
    assert ranked.camera_queries.diagonal().sum() == 0


def test_query_with_few_images_left_has_few_results():
    query = Embeddings(torch.randn(1, 4), np.array([1]), np.array([1]))
    gallery = Embeddings(torch.randn(3, 4), np.array([1, 1, 2]), np.array([1, 2, 1]))
    ranked = rank_all(query, gallery, top=10)
    assert sorted(ranked.nearest[0].tolist()) == [-1, 1, 2]
