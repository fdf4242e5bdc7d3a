from __future__ import annotations

import numpy as np
import pytest
import torch

from rga_timm.evaluation.compute import Compute
from rga_timm.evaluation.ranking.distance import METRICS
from rga_timm.evaluation.ranking.neighbours import Neighbours, find_neighbours

PREFIXES = (21, 11, 6)


def find(
    query: torch.Tensor,
    gallery: torch.Tensor,
    prefixes: tuple[int, ...],
    metric: str = "cosine",
    tile_memory: int = 2**28,
) -> Neighbours:
    compute = Compute(tile_memory=tile_memory, progress=False)
    return find_neighbours(query, METRICS[metric](gallery), prefixes, compute)


def images(kind: str, n: int = 300, dim: int = 40) -> torch.Tensor:
    rng = np.random.default_rng(0)
    if kind == "noise":
        points = rng.normal(size=(n, dim))
    elif kind == "copies":  # every image 30 times: more than are asked for
        points = np.tile(rng.normal(size=(n // 30, dim)), (30, 1))
    elif kind == "near copies":
        points = rng.normal(size=(1, dim)) + 1e-3 * rng.normal(size=(n, dim))
    else:  # a grid: exact ties
        points = rng.integers(0, 3, size=(n, 4)) + 1.0
    return torch.from_numpy(points.astype(np.float32))


@pytest.mark.parametrize("tile_memory", [1, 20_000, 2**28])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", ["noise", "copies", "near copies", "grid"])
def test_prefixes_are_those_of_a_stable_sort(kind: str, metric: str, tile_memory: int) -> None:
    points = images(kind)
    found = find(points, points, PREFIXES, metric, tile_memory)
    distances = METRICS[metric](points)(points).numpy()
    order = np.argsort(distances, axis=1, kind="stable")
    for p in PREFIXES:
        np.testing.assert_array_equal(
            np.sort(found.nearest[:, :p], axis=1), np.sort(order[:, :p], axis=1)
        )
    # Of near copies a float32's last digit can depend on the tile.
    largest = np.maximum(distances.max(axis=1), np.finfo(np.float32).tiny)
    np.testing.assert_allclose(found.largest, largest, rtol=1e-6 if kind == "near copies" else 0)


def test_a_gallery_of_others() -> None:
    query, gallery = images("noise", n=20), images("noise", n=90).flip(1)
    found = find(query, gallery, (5,), "euclidean")
    distances = torch.cdist(query.double(), gallery.double()).numpy()
    order = np.argsort(distances, axis=1)[:, :5]
    np.testing.assert_array_equal(np.sort(found.nearest, axis=1), np.sort(order, axis=1))


def test_the_whole_gallery_can_be_asked_for() -> None:
    points = images("noise", n=30)
    found = find(points, points, (30,))
    np.testing.assert_array_equal(np.sort(found.nearest, axis=1), np.tile(np.arange(30), (30, 1)))
