"""Of every image the nearest in a gallery, and the distance of the furthest, by tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from rga_timm.evaluation.distributed import gather_rows, share
from rga_timm.evaluation.ranking.distance import METRICS, SquaredEuclidean, order_keys
from rga_timm.evaluation.ranking.float32_scores import (
    PAIR_COST,
    Float32Scores,
    PairDistances,
    round_up,
)
from rga_timm.evaluation.ranking.slices import slices

DEFAULT_TILE_MEMORY = 2**28  # bytes of distances at a time, here and where there are others

_SPARE = 16  # more than are asked for, among which the right ones are looked for
_FLOAT32_CELL, _EXACT_CELL = 12, 40  # bytes in passing
_MOST_ROWS = 256


class Neighbours(NamedTuple):
    """Of Q images in a gallery of G.

    Attributes:
        nearest: (Q, k) int32, the k nearest of each; an image of the gallery is among
            its own (unless k others are exact copies). The first p are the p nearest for each of
            the prefixes p that were asked for; the order in between says nothing.
        largest: (Q,) float32 distance of the furthest, never 0.
    """

    nearest: np.ndarray
    largest: np.ndarray


def find_neighbours(
    pairs: PairDistances,
    prefixes: Sequence[int],
    *,
    tile_memory: int,
    distributed: bool = False,
    progress: bool = False,
) -> Neighbours:
    """Find every query's nearest. Ties rank in the order of the gallery.

    Args:
        pairs: distances of single pairs; it knows queries, gallery and metric.
        prefixes: how many nearest are wanted, G at the most: several numbers, of which the largest
            is k.
        tile_memory: bytes for the rows computed at a time.
        distributed: whether the processes share the rows.
        progress: show a progress bar.

    Returns:
        The neighbours, the same for every size of tile, number of processes, and device.
    """
    exact = _Finder(pairs, prefixes, tile_memory)
    is_fast = pairs.query.device.type == "cpu" and pairs.are_ordinary
    find = _Float32Finder(exact, Float32Scores(pairs)) if is_fast else exact
    mine = share(len(pairs.query), distributed)
    nearest = np.empty((len(mine), max(prefixes)), dtype=np.int32)
    largest = np.empty(len(mine), dtype=np.float32)
    with tqdm(total=len(mine), desc="neighbours", disable=not progress) as bar:
        for rows in slices(mine, find.step):
            to = slice(rows.start - mine.start, rows.stop - mine.start)
            nearest[to], largest[to] = find(rows)
            bar.update(rows.stop - rows.start)
    return Neighbours(gather_rows(nearest, distributed), gather_rows(largest, distributed))


class _Finder:
    """Neighbours of a tile of images, from exact distances."""

    def __init__(self, pairs: PairDistances, prefixes: Sequence[int], tile_memory: int) -> None:
        self.pairs = pairs
        self.prefixes, self.tile_memory = sorted(set(prefixes)), tile_memory
        self.step = _rows_of(tile_memory, _EXACT_CELL, len(pairs.gallery))
        self._to_gallery: SquaredEuclidean | None = None

    def __call__(self, rows: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, k) int64 and (T,) float32 of these rows."""
        if self._to_gallery is None:
            self._to_gallery = METRICS[self.pairs.metric](self.pairs.gallery.double())
        which = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
        distances = self._to_gallery(self.pairs.query[which].double())
        # Distinct keys, so the k smallest are those of a stable sort.
        k = self.prefixes[-1]
        keys = order_keys(distances).topk(k, dim=1, largest=False, sorted=True).values
        largest = distances.amax(1).clamp_min(torch.finfo(torch.float32).tiny)  # never 0 / 0
        return (keys & 0xFFFFFFFF).cpu().numpy(), largest.cpu().numpy()


class _Float32Finder:
    """The same from scores in float32, with a second look wherever these are too close to call."""

    def __init__(self, exact: _Finder, scores: Float32Scores) -> None:
        self.exact, self.scores = exact, scores
        self.G = len(exact.pairs.gallery)
        self.step = _rows_of(exact.tile_memory, _FLOAT32_CELL, self.G)
        self._buffer = np.empty((self.step, self.G), dtype=np.float32)

    def __call__(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """(T, k) int64 and (T,) float32 of these rows."""
        G, k = self.G, self.exact.prefixes[-1]
        scores = torch.from_numpy(self.scores(rows, out=self._buffer))  # (T, G)
        uncertainty = self.scores.uncertainty(rows)
        top = scores.topk(min(G, k + _SPARE), dim=1, sorted=True)
        values, indices = top.values.double().numpy(), top.indices.numpy()  # nearest first

        is_open = np.zeros(len(values), dtype=bool)  # some prefix could be another set
        for p in self.exact.prefixes:
            if p < G:
                is_open |= values[:, p - 1] - values[:, p] <= uncertainty
        if k + _SPARE < G:
            reaches = values[:, k - 1] - values[:, -1] > uncertainty
        else:
            reaches = np.ones(len(values), dtype=bool)

        far = scores.amin(1).double().numpy() + uncertainty
        far_cells = np.flatnonzero(scores.numpy() <= round_up(far)[:, None])
        far_rows, far_columns = np.divmod(far_cells, G)
        if len(far_rows) > scores.numel() // PAIR_COST:
            return self._all_exact(rows)
        largest = np.full(len(values), np.finfo(np.float32).tiny, dtype=np.float32)
        far_distances = self.scores.exact(far_rows + rows.start, far_columns)
        np.maximum.at(largest, far_rows, far_distances)

        nearest = indices[:, :k].copy()
        second_look = np.flatnonzero(is_open & reaches)
        if len(second_look):
            candidates = indices[second_look]  # (R, k + spare)
            flat = np.repeat(second_look + rows.start, candidates.shape[1]), candidates.ravel()
            distances = torch.from_numpy(self.scores.exact(*flat)).view(candidates.shape)
            order = order_keys(distances, torch.from_numpy(candidates)).argsort(dim=1)[:, :k]
            nearest[second_look] = np.take_along_axis(candidates, order.numpy(), axis=1)
        for i in np.flatnonzero(is_open & ~reaches):  # copies and near copies
            nearest[i] = self.exact(np.array([rows.start + i]))[0]
        return nearest, largest

    def _all_exact(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        parts = map(self.exact, slices(range(rows.start, rows.stop), self.exact.step))
        nearest, largest = zip(*parts, strict=True)
        return np.concatenate(nearest), np.concatenate(largest)


def _rows_of(tile_memory: int, cell: int, G: int) -> int:
    return max(1, min(_MOST_ROWS, tile_memory // (cell * G)))
