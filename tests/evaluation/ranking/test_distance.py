from __future__ import annotations

import pytest
import torch

from rga_timm.evaluation.ranking.distance import Cosine, SquaredEuclidean, order_keys


@pytest.mark.parametrize("distance", [Cosine, SquaredEuclidean])
def test_copies_are_at_distance_0_exactly(distance: type[SquaredEuclidean]) -> None:
    vectors = torch.randn(40, 515, generator=torch.Generator().manual_seed(0)).double()
    distances = distance(vectors)(vectors)
    assert (distances.diagonal() == 0).all()
    assert (distances > 0).sum() == 40 * 39


def test_near_vectors_are_told_apart() -> None:
    vectors = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).double()
    moved = vectors + 1e-5
    actual = SquaredEuclidean(vectors)(moved).diagonal()
    torch.testing.assert_close(actual, torch.full((5,), 64e-10), rtol=1e-3, atol=0)


def test_a_zero_vector_is_at_cosine_distance_1_from_all() -> None:
    zero, others = torch.zeros(1, 3).double(), torch.eye(3).double() * 5
    assert Cosine(others)(zero).unique().tolist() == [1]
    assert Cosine(zero)(others).unique().tolist() == [1]


def test_keys_order_as_a_stable_sort_of_any_floats() -> None:
    values = torch.tensor([0.0, -0.0, 1.5, -2.0, 1e-40, -1e-40, 3e38, -3e38, 1.5, -2.0, 0.0])
    distances = values[torch.randint(0, len(values), (20, 60))]
    keys = order_keys(distances)
    order = distances.argsort(dim=1, stable=True)
    assert torch.equal(keys.argsort(dim=1), order)
    assert torch.equal(keys.sort(dim=1).values & 0xFFFFFFFF, order)
