"""Find the nearest gallery images of every image, and the distance of the furthest, by tiles."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rga_timm.evaluation.compute import Compute
from rga_timm.evaluation.distributed import gather_rows, share
from rga_timm.evaluation.ranking.distance import SquaredEuclidean, rows_of_a_tile, slices

_CELL = 8  # bytes that a distance takes for a moment
_TIED_ROWS = 8  # sorted at a time


class Neighbours(NamedTuple):
    """Neighbours of Q images in a gallery of G."""

    # (Q, k) int32, the k nearest, an image itself among them (unless k others are exact copies).
    # For each prefix p that was asked for, the first p are the p nearest; else in any order.
    nearest: np.ndarray
    largest: np.ndarray  # (Q,) float32 distance of the furthest, never 0


def find_neighbours(
    query: Tensor, to_gallery: SquaredEuclidean, prefixes: Sequence[int], compute: Compute
) -> Neighbours:
    """Find the nearest of (Q, D) queries. Ties rank in the order of the gallery.

    The result is the same for every tile size, number of processes, and device. `prefixes` say how
    many nearest are wanted, each at most G; the largest is k.
    """
    mine = share(len(query), compute.distributed)
    nearest = np.empty((len(mine), max(prefixes)), dtype=np.int32)
    largest = np.empty(len(mine), dtype=np.float32)
    step = rows_of_a_tile(compute.tile_memory, len(to_gallery.vectors), _CELL)
    with tqdm(total=len(mine), desc="neighbours", disable=not compute.progress) as bar:
        for rows in slices(mine, step):
            to = slice(rows.start - mine.start, rows.stop - mine.start)
            distances = to_gallery(query[rows])
            nearest[to] = _nearest(distances, prefixes).cpu().numpy()
            # Never 0: others are divided by it.
            smallest = torch.finfo(torch.float32).tiny
            largest[to] = distances.amax(1).clamp_min(smallest).cpu().numpy()
            bar.update(rows.stop - rows.start)
    nearest, largest = (gather_rows(rows, compute.distributed) for rows in (nearest, largest))
    return Neighbours(nearest, largest)


def _nearest(distances: Tensor, prefixes: Sequence[int]) -> Tensor:
    """(T, k) columns of the k nearest of each row of (T, G) float32 distances."""
    G, k = distances.shape[1], max(prefixes)
    values, columns = distances.topk(min(G, k + 1), dim=1, largest=False)
    ends = torch.tensor([p for p in prefixes if p < G], device=distances.device, dtype=torch.long)
    ties = (values[:, ends - 1] == values[:, ends]).any(1).nonzero().squeeze(1)
    for rows in ties.split(_TIED_ROWS):
        columns[rows, :k] = distances[rows].argsort(dim=1, stable=True)[:, :k]
    return columns[:, :k]
