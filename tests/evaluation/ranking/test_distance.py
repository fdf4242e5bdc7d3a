from __future__ import annotations

import numpy as np
import pytest
import torch

from rga_timm.evaluation.ranking import distance as module
from rga_timm.evaluation.ranking.distance import METRICS, Cosine, SquaredEuclidean

TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def features(seed: int, n: int, dim: int) -> torch.Tensor:
    """Lengths differ by factors up to some e."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator) * torch.randn(n, 1, generator=generator).exp()


@pytest.mark.parametrize("distance", [Cosine, SquaredEuclidean])
def test_copies_are_at_distance_0_exactly(distance: type[SquaredEuclidean]) -> None:
    vectors = features(0, 40, 515)
    distances = distance(vectors)(vectors)
    assert (distances.diagonal() == 0).all()
    assert (distances > 0).sum() == 40 * 39


def test_near_vectors_are_told_apart() -> None:
    vectors = features(0, 5, 64).double()
    actual = SquaredEuclidean(vectors)(vectors + 1e-5).diagonal()
    torch.testing.assert_close(actual, torch.full((5,), 64e-10), rtol=1e-3, atol=0)


def test_a_zero_vector_is_at_cosine_distance_1_from_all() -> None:
    zero, others = torch.zeros(1, 3), torch.eye(3) * 5
    assert Cosine(others)(zero).unique().tolist() == [1]
    assert Cosine(zero)(others).unique().tolist() == [1]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_distances_are_sums_in_float64_rounded_once(metric: str, dtype: torch.dtype) -> None:
    query, gallery = features(0, 40, 67).to(dtype), features(1, 60, 67).to(dtype)
    a, b = query.double().numpy(), gallery.double().numpy()
    if metric == "cosine":
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    expected = ((a[:, None] - b) ** 2).sum(-1) / (2 if metric == "cosine" else 1)
    actual = METRICS[metric](gallery)(query)
    np.testing.assert_array_equal(actual.numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_blocks_and_rows_at_a_time_do_not_matter(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, gallery = features(0, 30, 33), features(1, 101, 33)
    whole = METRICS[metric](gallery)(query).clone()
    for numbers in (1, 33 * 7, 33 * 100):
        monkeypatch.setattr(module, "_BLOCK", numbers)
        to_gallery = METRICS[metric](gallery)
        for rows in (slice(3, 4), slice(0, 20), slice(25, 30)):  # memory is used again
            assert torch.equal(to_gallery(query[rows]), whole[rows])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_distances_of_single_pairs_are_those_of_the_whole_matrix(
    metric: str, dtype: torch.dtype
) -> None:
    vectors = features(1, 60, 67).to(dtype)
    vectors[7] = vectors[3]  # a copy
    vectors[8] = vectors[5] * 0.3  # all but one, of another length
    vectors[9] = 0
    to_vectors = METRICS[metric](vectors)
    rows, columns = (index.ravel() for index in np.indices((60, 60)))
    pairs = to_vectors.between(rows, columns).reshape(60, 60)
    np.testing.assert_array_equal(pairs, to_vectors(vectors).numpy())
    assert pairs[3, 7] == 0
    none = np.empty(0, dtype=np.int64)
    assert to_vectors.between(none, none).shape == (0,)
