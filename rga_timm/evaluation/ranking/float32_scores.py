"""Scores in float32, fast, with a proven bound on their error; exact distances of single pairs.

Ranks depend on exact distances (`rga_timm.evaluation.ranking.distance` says why they are summed in
float64), but only where two images are almost equally near. A matrix product in float32 is about
twice as fast and half as large. So tiles of scores come from it, each with a bound within which
nothing may be decided by them, and the few pairs within the bound are looked at exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from rga_timm.evaluation.ranking.distance import SAME_VECTOR
from rga_timm.evaluation.ranking.slices import slices

_UNIT_ROUNDOFF = 2.0**-24  # of float32
# Numbers at a time: as many fit into caches, and torch does not split work on them among threads,
# which costs more than it brings where another program has one of the cores.
_CHUNK = 2**15
_CHUNK_ON_GPU = 2**22


# Looking at one pair exactly costs as much as this many cells of an exact tile.
PAIR_COST = 64


class PairDistances:
    """Exact distances of single pairs: those of `METRICS[metric]`, bit for bit.

    (But for the pair in some 10^8 whose float64 sum lies on the edge between two float32 numbers.)

    Args:
        query: (Q, D) features.
        gallery: (G, D), on the same device.
        metric: `cosine` or `euclidean`.
    """

    def __init__(self, query: Tensor, gallery: Tensor, metric: str) -> None:
        self.query, self.gallery, self.metric = query, gallery, metric
        self.query_lengths = lengths(query)  # (Q,) float64
        self.gallery_lengths = self.query_lengths if gallery is query else lengths(gallery)

    @property
    def are_ordinary(self) -> bool:
        """Whether no length is so extreme that squares or float32 would lose it."""
        both = np.concatenate([self.query_lengths, self.gallery_lengths])
        return bool(((both == 0) | ((both > 1e-30) & (both < 1e30))).all())

    def __call__(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Distances of query `rows[i]` and gallery image `columns[i]`, (n,) float32."""
        products = self._products(rows, columns)
        a_lengths, b_lengths = self.query_lengths[rows], self.gallery_lengths[columns]
        if self.metric == "cosine":
            length = a_lengths * b_lengths
            cosines = np.divide(products, length, out=np.zeros_like(products), where=length > 0)
            squared, scale = 2 - 2 * cosines, 2.0  # of unit vectors; zero vectors are at cosine 0
        else:
            squared, scale = a_lengths**2 + b_lengths**2 - 2 * products, a_lengths**2 + b_lengths**2
        squared = np.where(squared > scale * SAME_VECTOR, squared, 0).astype(np.float32)
        return squared / np.float32(2) if self.metric == "cosine" else squared

    def _products(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """a·b of the pairs, (n,) float64."""
        products = np.empty(len(rows))
        on_device = (torch.from_numpy(i).to(self.query.device) for i in (rows, columns))
        row_indices, column_indices = on_device
        chunk = _CHUNK if self.query.device.type == "cpu" else _CHUNK_ON_GPU
        step = min(max(1, chunk // self.query.shape[1]), len(rows))
        # The same memory for every step, or the system would have to make it anew each time.
        a, b = (x.new_empty(step, x.shape[1]) for x in (self.query, self.gallery))
        for part in slices(range(len(rows)), step or 1):
            n = part.stop - part.start
            torch.index_select(self.query, 0, row_indices[part], out=a[:n])
            torch.index_select(self.gallery, 0, column_indices[part], out=b[:n])
            products[part] = (a[:n].double() * b[:n].double()).sum(1).cpu().numpy()
        return products


class Float32Scores:
    """Tiles of scores of queries and gallery images in float32: the larger, the nearer.

    For the cosine a score is the cosine itself. For Euclidean distances it is a·b - |b|²/2, which
    ranks as -|a - b|² does, with all features scaled by one factor so that the longest has length
    1; the second term comes from one more component of the features.

    Args:
        exact: the pairs' exact distances; it knows features, which are on the CPU, and metric.
    """

    def __init__(self, exact: PairDistances) -> None:
        self.exact = exact
        longest = max(exact.query_lengths.max(), exact.gallery_lengths.max(), 1e-30)
        self._scale = None if exact.metric == "cosine" else 1 / longest
        self.gallery = self._vectors(exact.gallery, exact.gallery_lengths, is_query=False)
        self._buffer: Tensor | None = None

    def __call__(self, rows: slice, out: np.ndarray | None = None) -> np.ndarray:
        """Scores of a tile of queries.

        Args:
            rows: which queries.
            out: (≥ T, G) float32 to write to; it saves the system the work of new memory.

        Returns:
            (T, G) float32.
        """
        query = self._vectors(self.exact.query[rows], self.exact.query_lengths[rows], is_query=True)
        T, G = len(query), len(self.gallery)
        if self._buffer is None or self._buffer.shape[1] < T:
            self._buffer = torch.empty(G, T)
        product = self._buffer.flatten()[: G * T].view(G, T)
        # Many rows times few columns, and turned round, is up to twice as fast as few times many.
        # torch's threads, as everywhere else: two pools of threads would wait for each other.
        with _full_float32():
            torch.mm(self.gallery, query.T, out=product)
        result = torch.empty(T, G) if out is None else torch.from_numpy(out[:T])
        return result.copy_(product.T).numpy()

    def uncertainty(self, rows: slice) -> np.ndarray:
        """(T,) float64: scores further apart than this are in the order of the exact distances.

        Each component is rounded twice to float32 and D products are summed up, in whatever order:
        the error is below (D + 4) u Σ|a_k b_k| ≤ (D + 4) u |a| |b| (Higham, Accuracy and Stability
        of Numerical Algorithms, 3.1). Two scores err, and distances that are nearer to each other
        than float32 can tell are ties: each adds its share. Rounded up generously.
        """
        D, u = self.exact.query.shape[1], _UNIT_ROUNDOFF
        if self._scale is None:
            return np.full(len(self.exact.query_lengths[rows]), 2 * (D + 8) * u + 8 * u)
        a = self.exact.query_lengths[rows] * self._scale  # at most 1, as is any |b|
        return 2 * (D + 8) * u * (a + 0.5) + 4 * u * (a + 1) ** 2

    def _vectors(self, features: Tensor, feature_lengths: np.ndarray, *, is_query: bool) -> Tensor:
        """Features as the product takes them, (n, D) or (n, D + 1) float32, scaled in float64."""
        n, D = features.shape
        augmented = self._scale is not None
        vectors = np.empty((n, D + augmented), dtype=np.float32)
        with np.errstate(divide="ignore"):
            factors = np.where(feature_lengths > 0, 1 / feature_lengths, 0.0)
        if self._scale is not None:
            factors = np.full(n, self._scale)
            vectors[:, D] = 1 if is_query else -((feature_lengths * self._scale) ** 2) / 2
        for part in _chunks(n, D):
            scaled = features[part].double() * torch.from_numpy(factors[part, None])
            vectors[part, :D] = scaled.numpy()
        return torch.from_numpy(vectors)


@contextmanager
def _full_float32() -> Iterator[None]:
    """Products in float32 as the error's bound takes them, whatever shortcuts the caller allows."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


def round_down(values: np.ndarray) -> np.ndarray:
    """float64 to float32, never upwards."""
    return np.nextafter(values.astype(np.float32), np.float32(-np.inf))


def round_up(values: np.ndarray) -> np.ndarray:
    """float64 to float32, never downwards."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))


def lengths(features: Tensor) -> np.ndarray:
    """(n,) float64 Euclidean lengths of (n, D) features, without a float64 copy of them."""
    result = np.empty(len(features))
    for part in _chunks(*features.shape):
        rows = features[part].double()
        result[part] = torch.einsum("nd,nd->n", rows, rows).sqrt().cpu().numpy()
    return result


def _chunks(n: int, D: int) -> Iterator[slice]:
    """Slices of n rows, in which D float64 numbers a row are few bytes."""
    return slices(range(n), max(1, _CHUNK // D))
