"""Re-ranking with k-reciprocal encoding (Zhong et al., CVPR 2017, arXiv 1701.08398).

Two images are likely the same person when each is among the other's nearest. So every image is
encoded by its k-reciprocal neighbours, and compared by the Jaccard distance of these codes.

The numbers are those of the authors' code (zhunzhong07/person-re-ranking), which differs from the
paper's text in details: the distances are *squared* Euclidean ones, divided by the row's largest;
the expansion asks for *more* than 2/3; codes are normalised to sum 1. It keeps several dense
(N, N) matrices over all N = Q + G images. Here neighbours come from tiles of distances, everything
after them is a sparse matrix, and only the (Q, G) result is dense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from rga_timm.evaluation.distance import SquaredEuclidean, compute_device, order_keys
from rga_timm.evaluation.features import check_features, check_same_width

Features = TypeVar("Features", Tensor, np.ndarray)


@dataclass(frozen=True)
class Reranking:
    """Parameters of k-reciprocal re-ranking; the paper's values for Market-1501 by default.

    Attributes:
        k1: neighbours among which reciprocal ones are looked for.
        k2: images whose codes are averaged (local query expansion); 1 for none.
        lambda_value: weight of the original distance, from 0 to 1.

    Raises:
        ValueError: a value out of range.
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1:
            raise ValueError(f"k1 and k2 must be at least 1, got {self.k1} and {self.k2}")
        if not 0 <= self.lambda_value <= 1:
            raise ValueError(f"lambda_value must lie in 0 ... 1, got {self.lambda_value}")

    def check_fits(self, images: int) -> None:
        """Raises ValueError if k1 or k2 asks for more neighbours than the Q + G images have."""
        if self.k1 >= images or self.k2 > images:
            raise ValueError(
                f"k1 = {self.k1} must be below, k2 = {self.k2} at most, the {images} images"
            )


def k_reciprocal_rerank(
    query_features: Features,
    gallery_features: Features,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    tile: int = 128,
) -> Features:
    """Distances from every query to every gallery image, re-ranked.

    Features are compared as they are: L2-normalise them for the cosine's neighbours, as
    `evaluate(metric='cosine', rerank=...)` does. Distances come from the gallery features' device,
    the sparse part from the CPU. Equal distances rank in the order queries, then gallery.

    Args:
        query_features: (Q, D), array or tensor.
        gallery_features: (G, D), of the same kind.
        k1: neighbours among which reciprocal ones are looked for.
        k2: images whose codes are averaged; 1 for none.
        lambda_value: weight of the original distance; 1 keeps the original order, 0 is the Jaccard
            distance alone.
        tile: images whose distances to all N = Q + G are held at a time: about
            `tile * N * 32` bytes, beside a float64 copy of the features.

    Returns:
        (Q, G) float32 distances: an array for arrays, a tensor on the gallery's device for tensors.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, a parameter out of range,
            k1 or k2 larger than the images there are.
    """
    query = check_features("query", query_features)
    gallery = check_features("gallery", gallery_features)
    check_same_width(query, gallery)
    Q, N = len(query), len(query) + len(gallery)
    Reranking(k1, k2, lambda_value).check_fits(N)
    if tile < 1:
        raise ValueError(f"tile must be positive, got {tile}")

    device = compute_device(gallery.device)
    features = torch.cat([query.to(device).double(), gallery.to(device).double()])
    neighbours, largest, original = _neighbours(features, Q, max(k1 + 1, k2), tile)
    codes = _encode(features, neighbours, largest, k1)
    if k2 > 1:
        codes = _indicator(neighbours[:, :k2]) @ codes / k2  # local query expansion
    distances = _blend_jaccard(original, codes, lambda_value)

    if isinstance(gallery_features, Tensor):
        return torch.from_numpy(distances).to(gallery.device)
    return distances


def _neighbours(
    features: Tensor, Q: int, k: int, tile: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k nearest images of every image, and the distances of the queries.

    Args:
        features: (N, D) float64, the queries first.
        Q: the number of queries.
        k: neighbours to keep; an image is its own nearest.
        tile: rows at a time.

    Returns:
        (N, k) int64 neighbours, nearest first; (N,) float32 largest distance of every row;
        (Q, G) float32 distances of the queries to the gallery, divided by their row's largest.
    """
    N = len(features)
    neighbours = np.empty((N, k), dtype=np.int64)
    largest = np.empty(N, dtype=np.float32)
    original = np.empty((Q, N - Q), dtype=np.float32)
    to_all = SquaredEuclidean(features)
    for start in range(0, N, tile):
        rows = slice(start, start + tile)
        distances = to_all(features[rows])  # (T, N)
        # Distinct keys, so the k smallest are those of a stable sort.
        nearest = order_keys(distances).topk(k, dim=1, largest=False, sorted=True).values
        neighbours[rows] = (nearest & 0xFFFFFFFF).cpu().numpy()
        row_largest = distances.amax(1).clamp_min(torch.finfo(torch.float32).tiny)  # never 0 / 0
        largest[rows] = row_largest.cpu().numpy()
        if start < Q:
            queries = (distances / row_largest[:, None])[: Q - start, Q:]
            original[start : min(start + tile, Q)] = queries.cpu().numpy()
    return neighbours, largest, original


def _encode(
    features: Tensor, neighbours: np.ndarray, largest: np.ndarray, k1: int
) -> sparse.csr_array:
    """Code every image by its expanded k-reciprocal set: Gaussian weights that sum to 1.

    Returns:
        (N, N) sparse; row i is image i's code.
    """
    members = _expanded_reciprocal_sets(neighbours, k1).tocoo()
    distances = _paired_distances(features, members.row, members.col)
    weights = np.exp(-distances / largest[members.row])
    sums = np.bincount(members.row, weights=weights, minlength=len(features))
    # Every row with a member has a positive sum. A row has none if more than k1 exact copies push
    # an image out of its own neighbours; its code is 0, at Jaccard distance 1 from all.
    weights /= sums[members.row]
    return sparse.csr_array((weights, (members.row, members.col)), shape=members.shape)


def _expanded_reciprocal_sets(neighbours: np.ndarray, k1: int) -> sparse.csr_array:
    """R* of every image, as the rows of a sparse (N, N) matrix.

    R(i) holds the images that have i among their k1 (+ themselves) nearest and are among i's. A
    member q brings in its own, half as wide set H(q) if more than 2/3 of that is in R(i) already.
    """
    wide = _reciprocal(neighbours[:, : k1 + 1])  # R, symmetric
    half = _reciprocal(neighbours[:, : round(k1 / 2) + 1])  # H, symmetric
    size = half.sum(axis=1)
    overlap = (wide @ half).multiply(wide).tocoo()  # |R(i) ∩ H(q)| for every q in R(i)
    accepted = 3 * overlap.data > 2 * size[overlap.col]
    pairs = overlap.row[accepted], overlap.col[accepted]
    brings_in = sparse.csr_array((np.ones(len(pairs[0]), dtype=np.int32), pairs), shape=wide.shape)
    return sparse.csr_array(wide + brings_in @ half)


def _reciprocal(neighbours: np.ndarray) -> sparse.csr_array:
    """(N, N) sparse, 1 where two images are in each other's (N, k) neighbours."""
    is_near = _indicator(neighbours)
    return sparse.csr_array(is_near.multiply(is_near.T))


def _indicator(neighbours: np.ndarray) -> sparse.csr_array:
    """(N, N) sparse, 1 where the column is in the row's list; neighbours: (N, k)."""
    N, k = neighbours.shape
    starts = np.arange(0, N * k + 1, k)
    ones = np.ones(N * k, dtype=np.int32)
    return sparse.csr_array((ones, neighbours.ravel(), starts), shape=(N, N))


def _paired_distances(
    features: Tensor, rows: np.ndarray, columns: np.ndarray, chunk: int = 1024
) -> np.ndarray:
    """(n,) squared Euclidean distances of the pairs (rows[i], columns[i]), a chunk at a time."""
    distances = np.empty(len(rows))
    for start in range(0, len(rows), chunk):
        a = features[torch.from_numpy(rows[start : start + chunk]).to(features.device).long()]
        b = features[torch.from_numpy(columns[start : start + chunk]).to(features.device).long()]
        distances[start : start + chunk] = (a - b).square().sum(1).cpu().numpy()
    return distances


def _blend_jaccard(
    original: np.ndarray, codes: sparse.csr_array, lambda_value: float
) -> np.ndarray:
    """(1 - λ) Jaccard distance + λ original distance, written over `original`, (Q, G).

    Codes sum to 1, so of two with m = Σ min(a, b) the union Σ max(a, b) is 2 - m: the Jaccard
    distance is 1 - m / (2 - m). A query's code has few entries, and only gallery codes that share
    one of them have m > 0: those are found in the inverted index, the codes' transpose.
    """
    Q, G = original.shape
    index = sparse.csr_array(codes[Q:].T)  # (N, G): row j lists the images whose code has entry j
    for query in range(Q):
        entries = slice(codes.indptr[query], codes.indptr[query + 1])
        sharing = index[codes.indices[entries]]
        own = np.repeat(codes.data[entries], np.diff(sharing.indptr))
        shared = np.bincount(sharing.indices, np.minimum(own, sharing.data), minlength=G)
        original[query] *= lambda_value
        original[query] += (1 - lambda_value) * (1 - shared / (2 - shared))
    return original
