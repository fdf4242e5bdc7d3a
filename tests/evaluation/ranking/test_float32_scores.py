from __future__ import annotations

import numpy as np
import pytest
import torch

from rga_timm.evaluation.ranking.distance import METRICS
from rga_timm.evaluation.ranking.float32_scores import Float32Scores, PairDistances


def features(seed: int, n: int, dim: int, spread: float = 1.0) -> torch.Tensor:
    """Lengths differ by factors up to e^spread."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(spread * rng.normal(size=(n, 1)))
    return torch.from_numpy((rng.normal(size=(n, dim)) * lengths).astype(np.float32))


def exact_distances(query: torch.Tensor, gallery: torch.Tensor, metric: str) -> np.ndarray:
    return METRICS[metric](gallery.double())(query.double()).numpy()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_pair_distances_are_those_of_the_whole_matrix(metric: str, dtype: torch.dtype) -> None:
    query, gallery = features(0, 40, 67).to(dtype), features(1, 60, 67).to(dtype)
    gallery[7] = query[3]  # a copy
    gallery[8] = query[5] * 0.3  # all but one, of another length
    gallery[9] = 0
    rows, columns = (index.ravel() for index in np.indices((40, 60)))
    pairs = PairDistances(query, gallery, metric)(rows, columns)
    np.testing.assert_array_equal(
        pairs.reshape(40, 60), exact_distances(query, gallery, metric).astype(np.float32)
    )
    assert pairs.reshape(40, 60)[3, 7] == 0
    if metric == "cosine" and dtype in (torch.float32, torch.float64):
        assert pairs.reshape(40, 60)[5, 8] == 0


def test_no_pairs_give_no_distances() -> None:
    pairs = PairDistances(features(0, 3, 4), features(1, 3, 4), "cosine")
    none = np.empty(0, dtype=np.int64)
    assert pairs(none, none).shape == (0,)


def clear_pairs(scores: Float32Scores, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether scores tell two gallery images apart, and whether they agree with the distances.

    Both (Q, G, G), for every two images of the gallery.
    """
    rows = slice(0, len(distances))
    tile = scores(rows).astype(np.float64)
    ahead = tile[:, :, None] - tile[:, None, :]
    is_clear = np.abs(ahead) > scores.uncertainty(rows)[:, None, None]
    nearer = distances[:, :, None] < distances[:, None, :]
    return is_clear, nearer == (ahead > 0)


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("dim", [1, 3, 64, 515])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_scores_further_apart_than_the_uncertainty_rank_as_the_distances(
    metric: str, dim: int, spread: float
) -> None:
    query, gallery = features(dim, 20, dim, spread), features(dim + 1, 100, dim, spread)
    # Neighbours at every distance from rounding to the clearly different.
    steps = torch.logspace(-9, 0, 50)[:, None]
    gallery[50:] = gallery[:50] + steps * gallery[:50].norm(dim=1, keepdim=True)
    scores = Float32Scores(PairDistances(query, gallery, metric))
    is_clear, agrees = clear_pairs(scores, exact_distances(query, gallery, metric))
    assert agrees[is_clear].all()
    assert is_clear.mean() > 0.2  # and they do tell most apart


def test_the_uncertainty_is_needed() -> None:
    # Without it, float32 gets the order of near copies wrong: else the test above proves nothing.
    query = features(0, 50, 512)
    base = features(1, 1, 512)
    gallery = base + 1e-7 * features(2, 200, 512)
    scores = Float32Scores(PairDistances(query, gallery, "cosine"))
    distances = exact_distances(query, gallery, "cosine")
    tile = scores(slice(0, 50))
    nearer = distances[:, :, None] < distances[:, None, :]
    assert (nearer != (tile[:, :, None] > tile[:, None, :])).any()
    is_clear, _ = clear_pairs(scores, distances)
    assert not is_clear.any()


def test_low_precision_that_the_caller_allows_is_not_used() -> None:
    query, gallery = features(0, 8, 256), features(1, 300, 256)
    scores = Float32Scores(PairDistances(query, gallery, "cosine"))
    expected = scores(slice(0, 8))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # bfloat16 where the processor has it
    try:
        np.testing.assert_array_equal(scores(slice(0, 8)), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("scale", "ordinary"), [(1.0, True), (1e-25, True), (1e25, True), (1e-35, False), (1e35, False)]
)
def test_extreme_lengths_are_noticed(scale: float, ordinary: bool) -> None:
    query, gallery = features(0, 5, 4, 0), features(1, 5, 4, 0)
    query[2] *= scale
    assert PairDistances(query, gallery, "cosine").are_ordinary is ordinary


def test_a_zero_vector_is_ordinary() -> None:
    assert PairDistances(torch.zeros(2, 4), features(1, 5, 4), "euclidean").are_ordinary


def test_tiles_of_every_size_can_follow_each_other() -> None:
    query, gallery = features(0, 30, 16), features(1, 70, 16)
    scores = Float32Scores(PairDistances(query, gallery, "euclidean"))
    whole = scores(slice(0, 30)).copy()
    buffer = np.empty((20, 70), dtype=np.float32)
    for rows in (slice(3, 4), slice(0, 20), slice(25, 30)):
        np.testing.assert_allclose(scores(rows, out=buffer), whole[rows], atol=1e-6)
