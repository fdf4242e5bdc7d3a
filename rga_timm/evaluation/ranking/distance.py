"""Distances that do not depend on how they were computed.

A matrix product rounds differently for another tile shape, BLAS or device. Two equal images in the
gallery could then come out 1e-7 apart, and a ranking would change with the size of a tile. So
distances are summed in float64, whatever the features' precision, and rounded once to float32:
what the sum's rounding did vanishes (but for the one distance in some 10^8 that lies on the edge
between two floats), and equal things tie. Of vectors that are all but copies, nearer than 10^-4 of
their length, the sum keeps fewer digits than a float32 has: their order is the rounding's.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rga_timm.evaluation.ranking.slices import slices

# Nearer than float32's spacing at the vectors' own length: the same vector. Without it the
# cancellation in |a|² + |b|² - 2ab would rank exact copies by noise, near 0 where floats are dense.
SAME_VECTOR = float(torch.finfo(torch.float32).eps) ** 2

_BLOCK = 2**20  # float64 numbers of the vectors converted at a time
_PART = 2**15  # numbers of single rows or pairs: as many fit into a core's cache


def compute_device(device: torch.device | str) -> torch.device:
    """The device asked for, or the CPU if it has no float64 (Apple's MPS)."""
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


class SquaredEuclidean:
    """Squared Euclidean distances to a fixed set of vectors.

    The vectors are converted to float64 in blocks, again for every call. That costs a few percent
    of the product's time, where a float64 copy would take twice the memory of the features. All
    large arrays are used again: the first use of new memory would cost as much as the product.

    Args:
        vectors: (B, D), of any precision.
    """

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors
        self._terms = self._terms_of(vectors)
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, others: Tensor) -> Tensor:
        """Distances from (A, D): (A, B) float32, never negative, 0 from copies.

        The next call overwrites them.
        """
        others = others.double()
        terms = self._terms_of(others)[:, None]
        A, (B, D) = len(others), self.vectors.shape
        distances = self._buffer("distances", A, B, torch.float32)
        for block in slices(range(B), max(1, _BLOCK // D)):
            vectors = self.vectors[block]
            vectors = self._buffer("vectors", len(vectors), D).copy_(vectors)
            products = self._buffer("products", A, len(vectors))
            torch.mm(others, vectors.T, out=products)
            distances[:, block] = self._distances(products, terms, self._terms[block])
        return distances

    def between(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Distances of single pairs of the vectors, (n,) float32; both indices (n,) int64."""
        distances = np.empty(len(rows), dtype=np.float32)
        for part in slices(range(len(rows)), max(1, _PART // self.vectors.shape[1])):
            a, b = (torch.from_numpy(i[part]).to(self.vectors.device) for i in (rows, columns))
            products = (self.vectors[a].double() * self.vectors[b].double()).sum(1)
            found = self._distances(products, self._terms[a], self._terms[b])
            distances[part] = found.float().cpu().numpy()
        return distances

    def _buffer(
        self, name: str, rows: int, columns: int, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """Memory of an earlier call, or new memory if that is too small."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < rows * columns:
            buffer = torch.empty(rows * columns, dtype=dtype, device=self.vectors.device)
            self._buffers[name] = buffer
        return buffer[: rows * columns].view(rows, columns)

    def _terms_of(self, features: Tensor) -> Tensor:
        """What a vector adds to its distances: here its squared length, (n,) float64."""
        parts = (part.double() for part in features.split(max(1, _PART // features.shape[1])))
        return torch.cat([torch.einsum("nd,nd->n", part, part) for part in parts])

    def _distances(self, products: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Distances from products a·b, which are overwritten, and the terms of both sides."""
        squares = a + b
        distances = products.mul_(-2).add_(squares)
        return distances.masked_fill_(distances <= squares.mul_(SAME_VECTOR), 0)


class Cosine(SquaredEuclidean):
    """1 - cos, in 0 ... 2, of any vectors to a fixed set; 0 from copies of any length."""

    def _terms_of(self, features: Tensor) -> Tensor:
        """One over the length; 0 of a zero vector, whose cosine is 0."""
        lengths = super()._terms_of(features).sqrt()
        return torch.where(lengths > 0, 1 / lengths, 0.0)

    def _distances(self, products: Tensor, a: Tensor, b: Tensor) -> Tensor:
        cosines = products.mul_(a).mul_(b)
        return torch.threshold_(torch.sub(1, cosines, out=cosines), SAME_VECTOR, 0.0)


METRICS = {"cosine": Cosine, "euclidean": SquaredEuclidean}


def unit_vectors(features: Tensor) -> Tensor:
    """(n, D) float64 rows of length 1. A zero row stays zero."""
    return F.normalize(features.double(), dim=1, eps=torch.finfo(torch.float64).tiny)


def rescale_extremes(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor, float]:
    """Make sure that float32 can hold the squared distances.

    Args:
        query: (Q, D).
        gallery: (G, D).

    Returns:
        Queries and gallery, as they are unless their largest number is extreme: then scaled by one
        power of 2. And the factor that squared distances are to be multiplied by to undo it.
    """
    peak = max(float(limit.abs()) for x in (query, gallery) for limit in x.aminmax())
    if peak == 0 or 1e-15 < peak < 1e15:
        return query, gallery, 1.0
    exponent = math.frexp(peak)[1]
    # In two steps, for 2 to the power of all of it may be more than a float64 holds.
    steps = 2.0 ** -(exponent // 2), 2.0 ** -(exponent - exponent // 2)
    query, gallery = (x.double() * steps[0] * steps[1] for x in (query, gallery))
    try:
        return query, gallery, 4.0**exponent
    except OverflowError:
        return query, gallery, math.inf
