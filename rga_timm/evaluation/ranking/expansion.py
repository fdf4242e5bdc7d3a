"""Query expansion: what a query finds first helps it to find more; and multi-query: several images.

Average query expansion is Chum et al., Total Recall, ICCV 2007. Weights by a power of the
similarity are Radenović et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI
2019, section 3.3. No identity is used: the nearest image may be wrong, or of the query's camera.
Multi-query is Market-1501's protocol (Zheng et al., ICCV 2015).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rga_timm.evaluation.compute import DEFAULT_TILE_MEMORY, Compute
from rga_timm.evaluation.ranking.distance import Cosine, rescale_extremes, unit_vectors
from rga_timm.evaluation.ranking.features import (
    check_both,
    check_images,
    check_tile_memory,
    check_whole_number,
)
from rga_timm.evaluation.ranking.neighbours import find_neighbours


@dataclass(frozen=True)
class QueryExpansion:
    """Parameters of query expansion.

    Attributes:
        k: nearest gallery images that are averaged with the query.
        alpha: a neighbour's weight is its cosine to this power (0 if the cosine is negative); the
            query weighs 1. 0 is the plain average, in which all weigh 1.

    Raises:
        ValueError: a value out of range.
        TypeError: k is not a whole number.
    """

    k: int = 10
    alpha: float = 3.0

    def __post_init__(self) -> None:
        check_whole_number("k", self.k)
        if self.k < 1:
            raise ValueError(f"query expansion takes k = 1 neighbours or more, got {self.k}")
        if not (self.alpha >= 0 and np.isfinite(self.alpha)):
            raise ValueError(f"alpha must not be negative, got {self.alpha}")

    def check_fits(self, gallery: int) -> None:
        """Raises ValueError if the gallery has fewer than k images."""
        if self.k > gallery:
            raise ValueError(f"k = {self.k} neighbours are asked of a gallery of {gallery} images")


def expand_queries(
    query_features: np.ndarray | Tensor, gallery_features: np.ndarray | Tensor, *,
    k: int = 10, alpha: float = 3.0, tile_memory: int = DEFAULT_TILE_MEMORY,
    distributed: bool = False, progress: bool = False,
) -> Tensor:  # fmt: skip
    """Average each of (Q, D) queries with its nearest of (G, D) gallery images, on one device.

    Parameters are those of `QueryExpansion` and `evaluate`. Ties for the last place go to the first
    in the gallery.

    Returns:
        (Q, D) queries of length 1 (0 if everything averaged is 0), in the gallery's precision,
        float32 at least.

    Raises:
        ValueError: features that do not fit or are not finite, or a parameter out of range.
    """
    query, gallery = check_both(query_features, gallery_features)
    check_tile_memory(tile_memory)
    precision = torch.promote_types(gallery.dtype, torch.float32)
    query, gallery, _ = rescale_extremes(query, gallery)
    compute = Compute(tile_memory=tile_memory, distributed=distributed, progress=progress)
    expanded = average_with_nearest(query, gallery, QueryExpansion(k, alpha), compute)
    return expanded.to(precision)


def average_with_nearest(
    query: Tensor, gallery: Tensor, expansion: QueryExpansion, compute: Compute
) -> Tensor:
    """Expand checked features without extremes."""
    expansion.check_fits(len(gallery))
    nearest = find_neighbours(query, Cosine(gallery), (expansion.k,), compute).nearest
    # Sorted, because the k come in any order and rounding depends on it.
    nearest = np.sort(nearest, axis=1).astype(np.int64)
    unit_query = unit_vectors(query)
    expanded = unit_query.clone()
    for column in torch.from_numpy(nearest).to(gallery.device).T:
        neighbour = unit_vectors(gallery[column])
        cosines = (unit_query * neighbour).sum(1, keepdim=True)
        weights = cosines.clamp(0, 1) ** expansion.alpha if expansion.alpha else 1
        expanded += weights * neighbour
    return unit_vectors(expanded).to(torch.promote_types(gallery.dtype, torch.float32))


def pool_queries(
    features: np.ndarray | Tensor, pids: np.ndarray, camids: np.ndarray
) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """Multi-query: pool all query images that show a person under one camera to one query.

    Args:
        features: (Q, D).
        pids: (Q,) person ids.
        camids: (Q,) camera ids.

    Returns:
        (P, D) float32 means of the features as they are, (P,) person ids, (P,) camera ids, and (P,)
        the ascending index of each pair's first image.

    Raises:
        ValueError: features that are not finite, or ids that do not fit.
    """
    features, pids, camids = check_images("query", features, pids, camids)
    pairs = np.stack([pids, camids], axis=1)
    _, first, group = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # of the sorted pairs, by appearance
    groups = torch.from_numpy(np.argsort(order)[group.ravel()]).to(features.device)
    sums = features.new_zeros(len(first), features.shape[1], dtype=torch.float64)
    sums.index_add_(0, groups, features.double())
    counts = torch.bincount(groups, minlength=len(first))
    first = first[order]
    return (sums / counts[:, None]).float(), pids[first], camids[first], first
