"""Distances that do not depend on how they were computed.

A matrix product rounds differently for another tile shape, BLAS or device. Two equal images in the
gallery could then come out 1e-7 apart, and a ranking would change with the size of a tile. So
distances are summed in float64, whatever the features' precision, and rounded once to float32.
Equal distances then tie (except about one in 10^8, on the edge between two floats). Vectors nearer
than 10^-4 of their length keep fewer digits than a float32 has: rounding decides their order.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Nearer than float32's spacing at the vectors' own length: the same vector. Without it the
# cancellation in |a|² + |b|² - 2ab would rank exact copies by noise.
SAME_VECTOR = float(torch.finfo(torch.float32).eps) ** 2

_BLOCK = 2**20  # float64 numbers of the vectors converted at a time
_PART = 2**15  # numbers of single rows or pairs: as many fit into a core's cache
_MOST_ROWS = 128  # larger tiles are not faster


def slices(rows: range, step: int) -> Iterator[slice]:
    """Yield consecutive parts of rows, each of `step` except the last."""
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))


def rows_of_a_tile(tile_memory: int, columns: int, cell: int) -> int:
    """How many rows fit into the memory, at least one, where each number takes `cell` bytes."""
    return max(1, min(_MOST_ROWS, tile_memory // (cell * columns)))


def compute_device(device: torch.device | str) -> torch.device:
    """The device asked for, or the CPU if it has no float64 (Apple's MPS)."""
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


class SquaredEuclidean:
    """Squared Euclidean distances to a fixed set of vectors, (B, D), of any precision.

    Vectors are converted to float64 in blocks, again for every call: a float64 copy would take
    twice the memory of the features. All large arrays are used again.
    """

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors
        self._terms = self._terms_of(vectors)
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, others: Tensor) -> Tensor:
        """Distances from (A, D): (A, B) float32, not negative; the next call overwrites them."""
        others = others.double()
        terms = self._terms_of(others)[:, None]
        A, (B, D) = len(others), self.vectors.shape
        distances = self._buffer("distances", A, B, torch.float32)
        for block in slices(range(B), max(1, _BLOCK // D)):
            vectors = self._buffer("vectors", block.stop - block.start, D)
            vectors.copy_(self.vectors[block])
            products = self._buffer("products", A, len(vectors))
            torch.mm(others, vectors.T, out=products)
            distances[:, block] = self._distances(products, terms, self._terms[block])
        return distances

    def between(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Distances of single pairs of the vectors, (n,) float32, from (n,) int64 indices."""
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
        """A vector's term in its distances: its squared length, (n,) float64."""
        parts = (part.double() for part in features.split(max(1, _PART // features.shape[1])))
        return torch.cat([torch.einsum("nd,nd->n", part, part) for part in parts])

    def _distances(self, products: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Distances from products a·b, which are overwritten, and both sides' terms."""
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
    """Scale (Q, D) and (G, D) features by one power of 2 if float32 cannot hold their squares.

    Returns:
        Queries, gallery, and the factor by which squared distances are multiplied to undo it.
    """
    peak = max(float(limit.abs()) for x in (query, gallery) for limit in x.aminmax())
    if peak == 0 or 1e-15 < peak < 1e15:
        return query, gallery, 1.0
    exponent = math.frexp(peak)[1]
    # In two steps: one power of 2 can be too large for a float64.
    steps = 2.0 ** -(exponent // 2), 2.0 ** -(exponent - exponent // 2)
    query, gallery = (x.double() * steps[0] * steps[1] for x in (query, gallery))
    try:
        return query, gallery, 4.0**exponent
    except OverflowError:
        return query, gallery, math.inf
