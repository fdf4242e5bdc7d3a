"""Verification: are these two images the same person? True accepts at a given rate of false ones.

A threshold on the distance answers yes or no for a pair of images. Every query makes a pair with
every gallery image that it sees (the same person under the same camera is left out, as in ranking):
genuine pairs of one person, impostor pairs of two. There are Q x G of them, up to billions, and a
threshold for a false positive rate is the k-th smallest of the impostors' distances. It is found
exactly, without keeping or sorting them: float32 numbers are counted by their upper 16 bits, and in
a second pass the numbers of the one bin that matters by their lower 16.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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

_BITS = 16  # of a float32 looked at in each pass


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it does.

    Attributes:
        target_fpr: the false positive rate that was asked for.
        fpr: the one that there is: the share of impostor pairs that are accepted. The largest
            possible that is not above the target; 0 if the target is less than one pair.
        tpr: the share of genuine pairs that are accepted.
        threshold: a pair is accepted if its distance is *below* it. For the cosine, 1 - threshold
            is the similarity that is to be surpassed. Infinite if everything may be accepted.
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

    All parameters are those of `evaluate`, but for `fprs`: false positive rates, from 0 to 1.
    Distances are the same, and all are computed twice.

    Raises:
        ValueError: as `evaluate`, a rate out of range, or pairs of one kind only.
    """
    query = check_images("query", query_features, query_pids, query_camids)
    gallery = check_images("gallery", gallery_features, gallery_pids, gallery_camids)
    ranking = as_ranking(metric, rerank, expand)
    compute = Compute(
        device=device or gallery.features.device,
        distributed=distributed,
        progress=progress,
        tile_memory=tile_memory,
    )
    return _verify(query, gallery, fprs, ranking, compute)


def verify_embeddings(
    query: Embeddings,
    gallery: Embeddings,
    fprs: Sequence[float],
    ranking: Ranking,
    compute: Compute,
) -> Verification:
    """Verify embeddings, as `verify` does arrays."""
    return _verify(
        check_images("query", query.features, query.pids, query.camids),
        check_images("gallery", gallery.features, gallery.pids, gallery.camids),
        *(fprs, ranking, compute),
    )


def _verify(
    query: Images, gallery: Images, fprs: Sequence[float], ranking: Ranking, compute: Compute
) -> Verification:
    check_same_width(query.features, gallery.features)
    fprs = [float(fpr) for fpr in fprs]
    if not fprs or not all(0 <= fpr <= 1 for fpr in fprs):
        raise ValueError(f"false positive rates lie in 0 ... 1, got {fprs}")
    passes = _Passes(query, gallery, ranking, compute)
    genuine, upper = passes.first()
    num_genuine, num_impostor = passes.num_genuine, passes.num_impostor
    wanted = [_most_accepted(fpr, num_impostor) for fpr in fprs]
    below = np.cumsum(upper)
    # The k-th smallest, from 0, is the first that may not be accepted.
    bins = [int(np.searchsorted(below, k, side="right")) for k in wanted]
    lower = passes.second({b for b in bins if b < len(upper)})

    points = []
    for fpr, k, upper_bits in zip(fprs, wanted, bins, strict=True):
        threshold, accepted = np.inf, num_impostor
        if k < num_impostor:
            before = int(below[upper_bits] - upper[upper_bits])
            in_bin = np.cumsum(lower[upper_bits])
            lower_bits = int(np.searchsorted(in_bin, k - before, side="right"))
            accepted = before + int(in_bin[lower_bits] - lower[upper_bits][lower_bits])
            bits = np.array((upper_bits << _BITS) | lower_bits, dtype=np.int32)
            threshold = float(bits.view(np.float32))
        points.append(
            OperatingPoint(
                target_fpr=fpr,
                fpr=accepted / num_impostor,
                tpr=float(np.mean(genuine < threshold)),
                threshold=threshold * passes.tiles.factor,
            )
        )
    return Verification(tuple(points), num_genuine, num_impostor)


def _most_accepted(fpr: float, pairs: int) -> int:
    """The largest number of pairs whose share is not above a rate."""
    accepted = min(round(fpr * pairs), pairs)
    while accepted / pairs > fpr:
        accepted -= 1
    return accepted


class _Passes:
    """Goes through all distances, a tile at a time."""

    def __init__(self, query: Images, gallery: Images, ranking: Ranking, compute: Compute) -> None:
        self.pids, self.camids, self.distributed = query.pids, query.camids, compute.distributed
        self.index = GalleryIndex(gallery.pids, gallery.camids)
        pairs = self.index.same_person(self.pids, self.camids)
        self.num_impostor = len(query.pids) * len(gallery.pids) - len(pairs.rows)
        self.num_genuine = int((~pairs.same_camera).sum())
        if not self.num_genuine or not self.num_impostor:
            raise ValueError(
                f"there are {self.num_genuine} pairs of one person under two cameras and "
                f"{self.num_impostor} pairs of two people: both are needed"
            )
        self.tiles = Tiles(query.features, gallery.features, ranking, compute)

    def first(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances of all genuine pairs, and how many impostors have which upper bits."""
        genuine, counts = [np.empty(0, dtype=np.float32)], np.zeros(1 << (_BITS - 1), dtype=int)
        for matches, impostors in self._tiles():
            genuine.append(matches)
            # Not negative: the sign bit is 0, and bits grow with the number.
            upper = torch.bincount(impostors >> _BITS, minlength=len(counts))
            counts += upper.cpu().numpy()
        return gather_rows(np.concatenate(genuine), self.distributed), self._sum(counts)

    def second(self, bins: Collection[int]) -> dict[int, np.ndarray]:
        """How many impostors of each of these bins have which lower bits."""
        counts = {upper: np.zeros(1 << _BITS, dtype=int) for upper in sorted(bins)}
        for _, impostors in self._tiles() if bins else ():
            for upper, count in counts.items():
                lower = impostors[impostors >> _BITS == upper] & ((1 << _BITS) - 1)
                count += torch.bincount(lower, minlength=len(count)).cpu().numpy()
        return {upper: self._sum(count) for upper, count in counts.items()}

    def _tiles(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Of each tile the matches' distances (m,), and the bits of all impostors' (n,)."""
        for tile, distances in self.tiles.of(share(len(self.pids), self.distributed), cell=50):
            pairs = self.index.same_person(self.pids[tile], self.camids[tile])
            is_impostor = torch.ones_like(distances, dtype=torch.bool)
            is_impostor[pairs.rows, pairs.columns] = False
            impostors = (distances[is_impostor] + 0.0).view(torch.int32)  # -0.0 becomes 0.0
            yield distances[pairs.matches].cpu().numpy(), impostors

    def _sum(self, counts: np.ndarray) -> np.ndarray:
        """Over all processes."""
        return gather_rows(counts[None], self.distributed).sum(axis=0)
