"""The distances of all queries to the whole gallery, a tile of queries at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from rga_timm.evaluation.compute import Compute
from rga_timm.evaluation.ranking import distance
from rga_timm.evaluation.ranking.expansion import average_with_nearest
from rga_timm.evaluation.ranking.features import check_tile_memory
from rga_timm.evaluation.ranking.ranking import Ranking
from rga_timm.evaluation.ranking.rerank import KReciprocal


class Tiles:
    """The distances of (Q, D) queries to (G, D) gallery images, some rows at a time.

    Attributes:
        factor: What distances are to be multiplied by, because extreme features are scaled.
    """

    def __init__(self, query: Tensor, gallery: Tensor, ranking: Ranking, compute: Compute) -> None:
        check_tile_memory(compute.tile_memory)
        device = distance.compute_device(compute.device)
        query, gallery, factor = distance.rescale_extremes(query.to(device), gallery.to(device))
        self.factor = 1.0 if ranking.metric == "cosine" else factor
        if ranking.expansion:
            query = average_with_nearest(query, gallery, ranking.expansion, compute)
        self._query, self._columns, self._compute = query, len(gallery), compute
        self._reranker: KReciprocal | None = None
        if ranking.rerank:
            self._reranker = KReciprocal(query, gallery, ranking.rerank, ranking.metric, compute)
        else:
            self._to_gallery = distance.METRICS[ranking.metric](gallery)

    def of(self, queries: range, *, cell: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of the queries and (T, G) float32 distances, which the next ones overwrite.

        `cell` is how many bytes a distance takes, with all that the caller makes of it.
        """
        step = distance.rows_of_a_tile(self._compute.tile_memory, self._columns, cell)
        with tqdm(total=len(queries), desc="rank", disable=not self._compute.progress) as bar:
            for tile in distance.slices(queries, step):
                if self._reranker:
                    yield tile, torch.from_numpy(self._reranker(tile))
                else:
                    yield tile, self._to_gallery(self._query[tile])
                bar.update(tile.stop - tile.start)
