"""The distances of all queries to the whole gallery, a tile of queries at a time.

On a CPU scores in float32 decide where they can, on other devices (whose memory is faster, and
which count in one flat pass) and wherever float32 leaves too much open all is exact from the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rga_timm.evaluation.ranking.counting import MatchRanks, SamePerson, rank_matches
from rga_timm.evaluation.ranking.distance import (
    METRICS,
    SquaredEuclidean,
    compute_device,
    order_keys,
    tamed,
)
from rga_timm.evaluation.ranking.expansion import QueryExpansion, as_expansion, expand_queries
from rga_timm.evaluation.ranking.features import check_tile_memory
from rga_timm.evaluation.ranking.float32_scores import PAIR_COST, Float32Scores, PairDistances
from rga_timm.evaluation.ranking.rerank import KReciprocal, Reranking, as_reranking
from rga_timm.evaluation.ranking.slices import slices

# Bytes that one distance takes in passing: of counting, and of searching exact keys.
_COUNTED, _SEARCHED = 32, 50
_MOST_ROWS = 128  # larger tiles are not faster
# Distances that are exact already are apart or equal; below it a pair is looked at again.
_EXACT = 1e-9


class Comparison(NamedTuple):
    """How queries and gallery are compared, checked before any work.

    Attributes:
        metric: a key of `METRICS`.
        reranking: parameters of the re-ranking; None for none.
        expansion: of the query expansion; None for none.
        tile_memory: bytes that a tile may take.
    """

    metric: str
    reranking: Reranking | None
    expansion: QueryExpansion | None
    tile_memory: int

    @classmethod
    def checked(
        cls,
        metric: str,
        rerank: Reranking | Mapping[str, Any] | None,
        expand: QueryExpansion | Mapping[str, Any] | None,
        tile_memory: int,
    ) -> Comparison:
        """From the arguments of `evaluate` and `verify`.

        Raises:
            ValueError: a value out of range.
            TypeError: one of another type or name.
        """
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
        check_tile_memory(tile_memory)
        expansion = as_expansion(expand)
        if expansion and metric != "cosine":
            raise ValueError(f"queries are expanded by the cosine; the metric is {metric}")
        return cls(metric, as_reranking(rerank), expansion, tile_memory)


class Tiles:
    """What one tile of queries after the other has to do with the gallery.

    Args:
        query: (Q, D) features.
        gallery: (G, D).
        comparison: how they are compared.
        device: where to compute; the gallery's by default.
        distributed: whether the processes share the work that comes before the tiles.
        progress: show progress bars.

    Attributes:
        factor: what distances are to be multiplied by, for extreme features are scaled.
    """

    def __init__(
        self,
        query: Tensor,
        gallery: Tensor,
        comparison: Comparison,
        *,
        device: torch.device | str | None,
        distributed: bool,
        progress: bool,
    ) -> None:
        device = compute_device(device or gallery.device)
        query, gallery, self.factor = tamed(query.to(device), gallery.to(device), comparison.metric)
        work: dict[str, Any] = {
            "tile_memory": comparison.tile_memory, "distributed": distributed, "progress": progress,
        }  # fmt: skip
        if comparison.expansion:
            query = expand_queries(query, gallery, **asdict(comparison.expansion), **work)
        self.query, self.gallery, self.metric = query, gallery, comparison.metric
        self.tile_memory, self.progress = comparison.tile_memory, progress
        self._to_gallery: SquaredEuclidean | None = None
        self._scores: Float32Scores | None = None
        self._buffer: np.ndarray | None = None
        self._reranker: KReciprocal | None = None
        if comparison.reranking:
            self._reranker = KReciprocal(
                query, gallery, comparison.reranking, metric=comparison.metric, **work
            )
        elif query.device.type == "cpu":
            pairs = PairDistances(query, gallery, comparison.metric)
            if pairs.are_ordinary:
                self._scores = Float32Scores(pairs)

    def of(self, queries: range, *, exact: bool = False) -> Iterator[slice]:
        """Slices of the queries, as large as the memory allows.

        Args:
            queries: which ones.
            exact: whether their distances are wanted, not their ranks alone.
        """
        cell = _SEARCHED if exact or not self._scores else _COUNTED
        step = max(1, min(_MOST_ROWS, self.tile_memory // (cell * len(self.gallery))))
        with tqdm(total=len(queries), desc="rank", disable=not self.progress) as bar:
            for tile in slices(queries, step):
                yield tile
                bar.update(tile.stop - tile.start)

    def distances(self, tile: slice) -> Tensor:
        """Exact distances, or re-ranked ones: (T, G) float32."""
        if self._reranker:
            return torch.from_numpy(self._reranker(tile)).to(self.query.device)
        if self._to_gallery is None:
            self._to_gallery = METRICS[self.metric](self.gallery.double())
        return self._to_gallery(self.query[tile].double())

    def ranks(self, tile: slice, pairs: SamePerson) -> MatchRanks:
        """The ascending ranks, from 0, of each query's true matches.

        Args:
            tile: T queries.
            pairs: whom they show, as `GalleryIndex.same_person` says.
        """
        if self._reranker:
            distances = self._reranker(tile)
            ranks = rank_matches(
                -distances, np.full(len(distances), _EXACT), pairs,
                lambda rows, columns: distances[rows, columns], distances.size,
            )  # fmt: skip
            assert ranks is not None  # nothing is too much to look at
            return ranks
        if self._scores is None:
            return match_ranks(*match_gaps(self.distances(tile), pairs))
        if self._buffer is None:
            rows = tile.stop - tile.start  # the first tile is the largest
            self._buffer = np.empty((rows, len(self.gallery)), dtype=np.float32)
        scores = self._scores(tile, out=self._buffer)
        pair_distances = self._scores.exact

        def exact(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return pair_distances(rows + tile.start, columns)

        uncertainty = self._scores.uncertainty(tile)
        ranks = rank_matches(scores, uncertainty, pairs, exact, scores.size // PAIR_COST)
        return self._exact_ranks(tile, pairs) if ranks is None else ranks

    def _exact_ranks(self, tile: slice, pairs: SamePerson) -> MatchRanks:
        """As `ranks`, without float32, in smaller tiles."""
        ranks = []
        step = max(1, self.tile_memory // (_SEARCHED * len(self.gallery)))
        for part in slices(range(tile.start, tile.stop), step):
            rows = slice(part.start - tile.start, part.stop - tile.start)
            ranks.append(match_ranks(*match_gaps(self.distances(part), pairs.of_rows(rows))))
        return MatchRanks.joined(ranks)


def match_gaps(distances: Tensor, pairs: SamePerson) -> tuple[Tensor, Tensor]:
    """Between which of its query's true matches every gallery image lies, by searching.

    Args:
        distances: (T, G) float32.
        pairs: who is where.

    Returns:
        (T, G) int64 gaps: in gap s lies an image that s matches precede (or are), so that it is
        nearer than match s, counted from 0, and all later ones. Images that are left out are in
        the last gap, the number of matches of the query that has most. And (T,) int64, how many
        matches each query has.
    """
    device, last = distances.device, torch.iinfo(torch.int64).max
    rows, columns = (torch.from_numpy(i).to(device) for i in pairs.matches)  # row by row
    keys = order_keys(distances)  # (T, G)
    keys[tuple(torch.from_numpy(i).to(device) for i in pairs.left_out)] = last

    # The matches' keys, sorted; rows with fewer matches than the longest, M, end in `last`.
    counts = torch.bincount(rows, minlength=len(keys))  # (T,)
    slots = torch.arange(len(rows), device=device) - (counts.cumsum(0) - counts)[rows]
    match_keys = keys.new_full((len(keys), int(counts.max())), last)
    match_keys[rows, slots] = keys[rows, columns]
    match_keys = match_keys.sort(dim=1).values
    return torch.searchsorted(match_keys, keys, right=True), counts


def match_ranks(gaps: Tensor, counts: Tensor) -> MatchRanks:
    """The ranks of each query's true matches, by counting.

    Args:
        gaps: (T, G), of `match_gaps`.
        counts: (T,), the same.
    """
    # Images nearer than match s lie in gaps 0 ... s. One flat bincount for all rows:
    # deterministic on a GPU too.
    T, M = len(gaps), int(counts.max())
    cells = gaps + torch.arange(T, device=gaps.device)[:, None] * (M + 1)
    sizes = torch.bincount(cells.flatten(), minlength=T * (M + 1)).view(T, M + 1)
    is_match = torch.arange(M + 1, device=gaps.device) < counts[:, None]
    return MatchRanks(sizes.cumsum(1)[is_match].cpu().numpy(), counts.cpu().numpy())
