"""Verification: are these two images the same person? True accepts at a given rate of false ones.

A threshold on the distance accepts or rejects a pair. Every query makes a pair with every gallery
image (except the same person under the same camera, as in ranking): genuine pairs of one person,
impostor pairs of two. There are Q x G of them, up to billions. The threshold for a false positive
rate is the k-th smallest distance of impostors, so only the k smallest are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rga_timm.evaluation.compute import DEFAULT_TILE_MEMORY, Compute
from rga_timm.evaluation.distributed import gather_rows, share
from rga_timm.evaluation.ranking.counting import GalleryIndex
from rga_timm.evaluation.ranking.expansion import QueryExpansion
from rga_timm.evaluation.ranking.features import Ids, Images, check_images, check_same_width
from rga_timm.evaluation.ranking.ranking import Ranking, as_ranking
from rga_timm.evaluation.ranking.rerank import Reranking
from rga_timm.evaluation.ranking.tiles import Tiles

if TYPE_CHECKING:  # embedding imports the readers, which nothing here needs
    from rga_timm.evaluation.embedding.embed import Embeddings

_BYTES = 16  # that a distance takes for a moment


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its rates.

    Attributes:
        target_fpr: the false positive rate that was asked for.
        fpr: the share of impostor pairs that are accepted: the largest possible that is not above
            the target; 0 if the target is less than one pair.
        tpr: the share of genuine pairs that are accepted.
        threshold: a pair is accepted if its distance is *below* it. For the cosine, 1 - threshold
            is the least similarity. Infinite if everything may be accepted.
    """

    target_fpr: float
    fpr: float
    tpr: float
    threshold: float


@dataclass(frozen=True)
class Verification:
    """How well one threshold tells people apart.

    Attributes:
        points: one for each rate that was asked for.
        num_genuine: pairs of one person.
        num_impostor: pairs of two people.
    """

    points: tuple[OperatingPoint, ...]
    num_genuine: int
    num_impostor: int


def verify(
    query_features: np.ndarray | Tensor,
    query_pids: Ids,
    query_camids: Ids,
    gallery_features: np.ndarray | Tensor,
    gallery_pids: Ids,
    gallery_camids: Ids,
    *,
    fprs: Sequence[float] = (1e-4, 1e-3, 1e-2),
    metric: str = "cosine",
    rerank: Reranking | Mapping[str, Any] | None = None,
    expand: QueryExpansion | Mapping[str, Any] | None = None,
    tile_memory: int = DEFAULT_TILE_MEMORY,
    device: torch.device | str | None = None,
    distributed: bool = False,
    progress: bool = False,
) -> Verification:
    """The true positive rate at given false positive rates, and the thresholds that give it.

    All parameters but `fprs` (false positive rates, from 0 to 1) and all distances are those of
    `evaluate`. Memory grows with the largest rate below 1: 8 bytes for each accepted pair, some
    80 MB for 0.01 and data of MSMT17's size.

    Raises:
        ValueError: as `evaluate`, a rate out of range, or pairs of one kind only.
    """
    query = check_images("query", query_features, query_pids, query_camids)
    gallery = check_images("gallery", gallery_features, gallery_pids, gallery_camids)
    ranking = as_ranking(metric, rerank, expand)
    compute = Compute(
        device=device or gallery.features.device,
        tile_memory=tile_memory, distributed=distributed, progress=progress,
    )  # fmt: skip
    return _verify(query, gallery, fprs, ranking, compute)


def verify_embeddings(
    query: "Embeddings",
    gallery: "Embeddings",
    fprs: Sequence[float],
    ranking: Ranking,
    compute: Compute,
) -> Verification:
    """Verify embeddings, as `verify` does arrays."""
    return _verify(
        check_images("query", query.features, query.pids, query.camids),
        check_images("gallery", gallery.features, gallery.pids, gallery.camids),
        fprs,
        ranking,
        compute,
    )


def _verify(
    query: Images, gallery: Images, fprs: Sequence[float], ranking: Ranking, compute: Compute
) -> Verification:
    check_same_width(query.features, gallery.features)
    fprs = [float(fpr) for fpr in fprs]
    if not fprs or not all(0 <= fpr <= 1 for fpr in fprs):
        raise ValueError(f"false positive rates lie in 0 ... 1, got {fprs}")
    index = GalleryIndex(gallery.pids, gallery.camids)
    pairs = index.same_person(query.pids, query.camids)
    num_impostor = len(query.pids) * len(gallery.pids) - len(pairs.rows)
    num_genuine = int((~pairs.same_camera).sum())
    if not num_genuine or not num_impostor:
        raise ValueError(
            f"there are {num_genuine} pairs of one person under two cameras and {num_impostor} "
            "pairs of two people: both are needed"
        )
    # The k-th smallest distance, from 0, is the first that may not be accepted.
    accepted = [_most_accepted(fpr, num_impostor) for fpr in fprs]
    smallest = _Smallest(max((k + 1 for k in accepted if k < num_impostor), default=0))
    genuine = [np.empty(0, dtype=np.float32)]
    tiles = Tiles(query.features, gallery.features, ranking, compute)
    for tile, distances in tiles.of(share(len(query.pids), compute.distributed), cell=_BYTES):
        pairs = index.same_person(query.pids[tile], query.camids[tile])
        genuine.append(distances[pairs.matches].cpu().numpy())
        distances[pairs.rows, pairs.columns] = torch.inf
        smallest.add(distances)
    genuine_distances = gather_rows(np.concatenate(genuine), compute.distributed)
    impostors = np.sort(gather_rows(smallest.values, compute.distributed))

    points = []
    for fpr, k in zip(fprs, accepted, strict=True):
        threshold = impostors[k] if k < num_impostor else np.inf
        below = int(np.searchsorted(impostors, threshold)) if k < num_impostor else num_impostor
        tpr = float(np.mean(genuine_distances < threshold))
        points.append(
            OperatingPoint(fpr, below / num_impostor, tpr, float(threshold) * tiles.factor)
        )
    return Verification(tuple(points), num_genuine, num_impostor)


def _most_accepted(fpr: float, pairs: int) -> int:
    """The largest number of pairs whose share is not above a rate."""
    accepted = min(round(fpr * pairs), pairs)
    while accepted / pairs > fpr:
        accepted -= 1
    return accepted


class _Smallest:
    """The `count` smallest of all distances, and at times some more."""

    def __init__(self, count: int) -> None:
        self._count, self._bound = count, np.inf if count else -np.inf
        self._parts, self._size = [np.empty(0, dtype=np.float32)], 0

    def add(self, distances: Tensor) -> None:
        """Add distances; infinite ones do not count."""
        self._parts.append(distances[distances < self._bound].cpu().numpy())
        self._size += len(self._parts[-1])
        if self._size > 2 * self._count:
            smallest = np.partition(self.values, self._count - 1)[: self._count]
            self._parts, self._size, self._bound = [smallest], self._count, float(smallest.max())

    @property
    def values(self) -> np.ndarray:
        """(count or more,) float32, or all distances if there are fewer."""
        return np.concatenate(self._parts)
