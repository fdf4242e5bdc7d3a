"""Re-ranking with k-reciprocal encoding (Zhong et al., CVPR 2017, arXiv 1701.08398).

Two images are likely the same person when each is among the other's nearest. So every image is
encoded by its k-reciprocal neighbours, and compared by the Jaccard distance of these codes.

The numbers are those of the authors' code (zhunzhong07/person-re-ranking), which differs from the
paper's text: distances are *squared* Euclidean, divided by the row's largest; the expansion asks
for *more* than 2/3; codes are normalised to sum 1. Their code keeps several dense (N, N) matrices
over all N = Q + G images. Here neighbours come from tiles of distances, everything after them is
sparse, and the result comes in tiles of queries.
"""

import logging
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from rga_timm.evaluation.compute import DEFAULT_TILE_MEMORY, Compute
from rga_timm.evaluation.ranking import distance
from rga_timm.evaluation.ranking.counting import places_within
from rga_timm.evaluation.ranking.features import (
    check_both,
    check_tile_memory,
    check_whole_number,
)
from rga_timm.evaluation.ranking.neighbours import find_neighbours
from rga_timm.evaluation.ranking.reciprocal_codes import half_of, reciprocal_codes

Features = TypeVar("Features", Tensor, np.ndarray)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reranking:
    """Parameters of k-reciprocal re-ranking; the paper's values for Market-1501 by default.

    Attributes:
        k1: neighbours among which reciprocal ones are looked for.
        k2: images whose codes are averaged (local query expansion); 1 for none.
        lambda_value: weight of the original distance, from 0 to 1.

    Raises:
        ValueError: a value out of range.
        TypeError: k1 or k2 is not a whole number.
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3

    def __post_init__(self) -> None:
        check_whole_number("k1", self.k1)
        check_whole_number("k2", self.k2)
        if self.k1 < 1 or self.k2 < 1:
            raise ValueError(f"k1 and k2 must be at least 1, got {self.k1} and {self.k2}")
        if not 0 <= self.lambda_value <= 1:
            raise ValueError(f"lambda_value must lie in 0 ... 1, got {self.lambda_value}")

    def check_fits(self, images: int) -> None:
        """Raise a ValueError if k1 or k2 is too large for the Q + G images."""
        if self.k1 >= images or self.k2 > images:
            raise ValueError(
                f"k1 = {self.k1} must be below, k2 = {self.k2} at most, the {images} images"
            )

    def estimate_memory(
        self, queries: int, gallery: int, width: int, tile_memory: int = DEFAULT_TILE_MEMORY
    ) -> int:
        """Estimate the bytes that re-ranking takes, beside the caller's features.

        These are a copy of the features, the neighbours' lists, the tiles, and the codes. The codes
        are taken to have 8 k1 entries an image; they had 2.7 k1 on Market-1501, and 3.1 and 5.1 k1
        on drawn clusters.
        """
        images = queries + gallery
        features = 4 * images * width
        lists = 4 * images * max(self.k1 + 1, self.k2)
        entries = images * min(images, 8 * self.k1)
        return features + lists + 3 * 8 * entries + tile_memory


def k_reciprocal_rerank(
    query_features: Features, gallery_features: Features, *,
    k1: int = 20, k2: int = 6, lambda_value: float = 0.3,
    tile_memory: int = DEFAULT_TILE_MEMORY, progress: bool = False,
) -> Features:  # fmt: skip
    """Distances from every query to every gallery image, re-ranked.

    Features are compared as they are: L2-normalise them for the cosine. `evaluate(rerank=...)` does
    the same without the whole (Q, G) matrix. Distances are computed on the gallery features'
    device, the sparse part on the CPU. Equal distances rank in the order queries, then gallery.

    Args:
        query_features: (Q, D), array or tensor.
        gallery_features: (G, D), of the same kind.
        k1: neighbours among which reciprocal ones are looked for.
        k2: images whose codes are averaged; 1 for none.
        lambda_value: weight of the original distance; 1 keeps the original order, 0 is the Jaccard
            distance alone.
        tile_memory: bytes for the distances that are computed at a time.
        progress: show progress bars.

    Returns:
        (Q, G) float32 distances: an array for arrays, a tensor on the gallery's device for tensors.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, a parameter out of range,
            k1 or k2 too large for the number of images.
    """
    query, gallery = check_both(query_features, gallery_features)
    check_tile_memory(tile_memory)
    device = distance.compute_device(gallery.device)
    query, gallery, _ = distance.rescale_extremes(query.to(device), gallery.to(device))
    compute = Compute(device=device, tile_memory=tile_memory, progress=progress)
    rerank = KReciprocal(query, gallery, Reranking(k1, k2, lambda_value), "euclidean", compute)
    distances = np.empty((len(query), len(gallery)), dtype=np.float32)
    step = distance.rows_of_a_tile(tile_memory, len(gallery), cell=8)
    for tile in distance.slices(range(len(query)), step):
        distances[tile] = rerank(tile)
    if isinstance(gallery_features, Tensor):
        return torch.from_numpy(distances).to(gallery_features.device)
    return distances


class KReciprocal:
    """Re-ranked distances of (Q, D) queries and (G, D) gallery, for a tile of queries at a time.

    The cosine distance is half the squared Euclidean distance of unit vectors; the factor cancels.
    """

    def __init__(
        self, query: Tensor, gallery: Tensor, reranking: Reranking, metric: str, compute: Compute
    ) -> None:
        (Q, D), G = query.shape, len(gallery)
        reranking.check_fits(Q + G)
        _logger.info(
            "Re-ranking %d x %d images (k1 %d, k2 %d, lambda %g): about %.1f GB of memory",
            *(Q, G, *asdict(reranking).values()),
            reranking.estimate_memory(Q, G, D, compute.tile_memory) / 1e9,
        )
        self.query, self.lambda_value = query, reranking.lambda_value
        images = torch.cat([query, gallery])
        to_images = distance.METRICS[metric](images)
        k1, k2 = reranking.k1, reranking.k2
        prefixes = (k1 + 1, half_of(k1) + 1, k2)
        neighbours = find_neighbours(images, to_images, prefixes, compute)
        codes = reciprocal_codes(neighbours, to_images, k1, k2)
        self._largest = neighbours.largest[:Q]
        self._query_codes = codes[:Q]
        # (Q + G, G): row j lists the gallery images whose code has entry j.
        self._index = sparse.csr_array(codes[Q:].T)
        self._to_gallery = distance.METRICS[metric](gallery)

    def __call__(self, tile: slice) -> np.ndarray:
        """(1 - λ) Jaccard + λ original distance, (T, G) float32; the next call overwrites them.

        Codes sum to 1, so with m = Σ min(a, b) the union Σ max(a, b) is 2 - m and the Jaccard
        distance is 1 - m / (2 - m). The inverted index (the codes' transpose) finds the few gallery
        codes that share an entry with the query's and so have m > 0.
        """
        distances = self._to_gallery(self.query[tile]).cpu().numpy()
        distances *= np.float32(self.lambda_value) / self._largest[tile, None]
        distances += np.float32(1 - self.lambda_value)  # of those that share nothing
        codes, index = self._query_codes, self._index
        lengths = np.diff(index.indptr)
        for row, query in enumerate(range(*tile.indices(codes.shape[0]))):
            entries = slice(codes.indptr[query], codes.indptr[query + 1])
            rows = codes.indices[entries]  # of the index
            counts = lengths[rows]
            places = np.repeat(index.indptr[rows], counts) + places_within(counts)
            own = np.repeat(codes.data[entries], counts)
            smaller = np.minimum(own, index.data[places])
            shared = np.bincount(index.indices[places], smaller, minlength=index.shape[1])
            sharing = np.flatnonzero(shared)
            # Rounding makes sums of codes a little more or less than 1.
            shared = np.minimum(shared[sharing], 1)
            near = distances[row, sharing] - (1 - self.lambda_value) * (shared / (2 - shared))
            distances[row, sharing] = np.maximum(near, 0)
        return distances
