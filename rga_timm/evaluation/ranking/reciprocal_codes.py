"""The codes of k-reciprocal re-ranking: every image as weights on the images that it is close to.

All matrices are sparse: a row has some dozens to some hundreds of entries, whatever the size of the
gallery.
"""

import numpy as np
from scipy import sparse

from rga_timm.evaluation.ranking.distance import SquaredEuclidean
from rga_timm.evaluation.ranking.neighbours import Neighbours


def half_of(k1: int) -> int:
    """k1 / 2 of the paper, rounded as the authors' code does (halves to even)."""
    return round(k1 / 2)


def reciprocal_codes(
    neighbours: Neighbours, to_images: SquaredEuclidean, k1: int, k2: int
) -> sparse.csr_array:
    """Code every image by its expanded k-reciprocal set: Gaussian weights that sum to 1.

    `neighbours` are of all N images among themselves, with the prefixes k1 + 1, half_of(k1) + 1 and
    k2. Returns (N, N) float32; row i is image i's code.
    """
    members = _expanded_reciprocal_sets(neighbours.nearest, k1).tocoo()
    rows, columns = members.row.astype(np.int64), members.col.astype(np.int64)
    distances = _distances(to_images, rows, columns).astype(np.float64)
    weights = np.exp(-distances / neighbours.largest[rows])
    # Every row with a member has a positive sum. A row has no member if more than k1 exact copies
    # displace an image from its own neighbours; its code is 0, at Jaccard distance 1 from all.
    weights /= np.bincount(rows, weights=weights, minlength=members.shape[0])[rows]
    weights = weights.astype(np.float32)
    codes = sparse.csr_array((weights, (members.row, members.col)), shape=members.shape)
    return _indicator(neighbours.nearest[:, :k2], np.float32(1 / k2)) @ codes if k2 > 1 else codes


def _distances(to_images: SquaredEuclidean, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(n,) float32 distances of pairs of images, computed once for (i, j) and (j, i)."""
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    N = len(to_images.vectors)
    once, where = np.unique(low * N + high, return_inverse=True)
    return to_images.between(*np.divmod(once, N))[where]


def _expanded_reciprocal_sets(nearest: np.ndarray, k1: int) -> sparse.csr_array:
    """R* of every image, as the rows of a sparse (N, N) matrix.

    R(i) holds the images that have i among their k1 (+ themselves) nearest and are among i's. A
    member q brings in its own, half as wide set H(q) if more than 2/3 of that is in R(i) already.
    """
    wide = _reciprocal(nearest[:, : k1 + 1])  # R, symmetric
    half = _reciprocal(nearest[:, : half_of(k1) + 1])  # H, symmetric
    size = half.sum(axis=1)
    overlap = (wide @ half).multiply(wide).tocoo()  # |R(i) ∩ H(q)| for every q in R(i)
    accepted = 3 * overlap.data > 2 * size[overlap.col]
    accepting = overlap.row[accepted], overlap.col[accepted]
    ones = np.ones(len(accepting[0]), dtype=np.int32)
    brings_in = sparse.csr_array((ones, accepting), shape=wide.shape)
    return sparse.csr_array(wide + brings_in @ half)


def _reciprocal(nearest: np.ndarray) -> sparse.csr_array:
    """(N, N) sparse, 1 where two images are in each other's (N, k) neighbours."""
    is_near = _indicator(nearest, np.int32(1))
    return sparse.csr_array(is_near.multiply(is_near.T))


def _indicator(nearest: np.ndarray, value: np.generic) -> sparse.csr_array:
    """(N, N) sparse, `value` where the column is in the row's list; nearest: (N, k)."""
    N, k = nearest.shape
    starts = np.arange(0, N * k + 1, k)
    return sparse.csr_array((np.full(N * k, value), nearest.ravel(), starts), shape=(N, N))
