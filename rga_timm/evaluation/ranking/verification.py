"""Verification: are these two images the same person? True accepts at a given rate of false ones.

A threshold on the distance answers yes or no for a pair of images. Every query makes a pair with
every gallery image that it sees (the same person under the same camera is left out, as in ranking):
genuine pairs of one person, impostor pairs of two. There are Q x G of them, up to billions, and a
threshold for a false positive rate is the k-th smallest of the impostors' distances. It is found
exactly, without keeping or sorting them: float32 numbers are counted by their upper 16 bits, and in
a second pass the numbers of the one bin that matters by their lower 16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rga_timm.evaluation.distributed import gather_rows, share
from rga_timm.evaluation.ranking.counting import GalleryIndex
from rga_timm.evaluation.ranking.expansion import QueryExpansion
from rga_timm.evaluation.ranking.features import Ids, check_query_gallery
from rga_timm.evaluation.ranking.neighbours import DEFAULT_TILE_MEMORY
from rga_timm.evaluation.ranking.rerank import Reranking
from rga_timm.evaluation.ranking.tiles import Comparison, Tiles

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

    Distances are those of `evaluate`, and all are looked at twice.

    Args:
        query_features: (Q, D), array or tensor, CPU or GPU.
        query_pids: (Q,) person ids, integers.
        query_camids: (Q,) camera ids, integers.
        gallery_features: (G, D).
        gallery_pids: (G,).
        gallery_camids: (G,).
        fprs: false positive rates, from 0 to 1.
        metric: as for `evaluate`.
        rerank: as for `evaluate`.
        expand: as for `evaluate`.
        tile_memory: bytes for the distances that are computed at a time.
        device: where to compute; the gallery features' own by default.
        distributed: whether the processes of the default group share the queries.
        progress: show progress bars.

    Returns:
        The operating points.

    Raises:
        ValueError: as `evaluate`, a rate out of range, or pairs of one kind only.
    """
    comparison = Comparison.checked(metric, rerank, expand, tile_memory)
    fprs = [float(fpr) for fpr in fprs]
    if not fprs or not all(0 <= fpr <= 1 for fpr in fprs):
        raise ValueError(f"false positive rates lie in 0 ... 1, got {fprs}")
    sets = check_query_gallery(
        query_features, query_pids, query_camids, gallery_features, gallery_pids, gallery_camids
    )
    index = GalleryIndex(sets.gallery_pids, sets.gallery_camids)
    pairs = index.same_person(sets.query_pids, sets.query_camids)
    num_impostor = len(sets.query) * len(sets.gallery) - len(pairs.rows)
    num_genuine = int((~pairs.same_camera).sum())
    if not num_genuine or not num_impostor:
        raise ValueError(
            f"there are {num_genuine} pairs of one person under two cameras and {num_impostor} "
            "pairs of two people: both are needed"
        )
    tiles = Tiles(
        sets.query,
        sets.gallery,
        comparison,
        device=device,
        distributed=distributed,
        progress=progress,
    )
    passes = _Passes(sets.query_pids, sets.query_camids, index, tiles, distributed)

    genuine, upper = passes.first()
    wanted = [_most_accepted(fpr, num_impostor) for fpr in fprs]
    below = np.cumsum(upper)
    bins = {int(np.searchsorted(below, k, side="right")) for k in wanted if k < num_impostor}
    lower = passes.second(sorted(bins))

    points = []
    for fpr, k in zip(fprs, wanted, strict=True):
        threshold, accepted = np.inf, num_impostor
        if k < num_impostor:  # the k-th smallest, from 0, is the first that may not be accepted
            upper_bits = int(np.searchsorted(below, k, side="right"))
            before = int(below[upper_bits] - upper[upper_bits])
            in_bin = np.cumsum(lower[upper_bits])
            lower_bits = int(np.searchsorted(in_bin, k - before, side="right"))
            accepted = before + int(in_bin[lower_bits] - lower[upper_bits][lower_bits])
            bits = np.array((upper_bits << _BITS) | lower_bits, dtype=np.int32)
            threshold = float(bits.view(np.float32))
        points.append(
            OperatingPoint(
                target_fpr=float(fpr),
                fpr=accepted / num_impostor,
                tpr=float(np.mean(genuine < threshold)),
                threshold=threshold * tiles.factor,
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

    def __init__(
        self,
        query_pids: np.ndarray,
        query_camids: np.ndarray,
        index: GalleryIndex,
        tiles: Tiles,
        distributed: bool,
    ) -> None:
        self.pids, self.camids, self.index = query_pids, query_camids, index
        self.tiles, self.distributed = tiles, distributed

    def first(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances of all genuine pairs, and how many impostors have which upper bits."""
        genuine, counts = [np.empty(0, dtype=np.float32)], np.zeros(1 << (_BITS - 1), dtype=int)
        for distances, impostors, matches in self._tiles():
            genuine.append(distances[matches].cpu().numpy())
            # Not negative: the sign bit is 0, and bits grow with the number.
            upper = torch.bincount(impostors >> _BITS, minlength=len(counts))
            counts += upper.cpu().numpy()
        return gather_rows(np.concatenate(genuine), self.distributed), self._sum(counts)

    def second(self, bins: Sequence[int]) -> dict[int, np.ndarray]:
        """How many impostors of each of these bins have which lower bits."""
        counts = {upper: np.zeros(1 << _BITS, dtype=int) for upper in bins}
        for _, impostors, _ in self._tiles() if bins else ():
            for upper, count in counts.items():
                lower = impostors[impostors >> _BITS == upper] & ((1 << _BITS) - 1)
                count += torch.bincount(lower, minlength=len(count)).cpu().numpy()
        return {upper: self._sum(count) for upper, count in counts.items()}

    def _tiles(self) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, Tensor]]]:
        """Of each tile distances (T, G), the bits of all impostors' (n,), and where matches are."""
        for tile in self.tiles.of(share(len(self.pids), self.distributed), exact=True):
            pairs = self.index.same_person(self.pids[tile], self.camids[tile])
            distances = self.tiles.distances(tile)
            to_device = (torch.from_numpy(i).to(distances.device) for i in pairs[:2])
            is_impostor = torch.ones_like(distances, dtype=torch.bool)
            is_impostor[tuple(to_device)] = False
            impostors = (distances[is_impostor] + 0.0).view(torch.int32)  # -0.0 becomes 0.0
            rows, columns = (torch.from_numpy(i).to(distances.device) for i in pairs.matches)
            yield distances, impostors, (rows, columns)

    def _sum(self, counts: np.ndarray) -> np.ndarray:
        """Over all processes."""
        return gather_rows(counts[None], self.distributed).sum(axis=0)
