"""Rank a gallery for every query, and score the rankings: CMC, mAP, mINP.

Only the ranks of a query's true matches matter. `rga_timm.evaluation.ranking.counting` counts the
images that are nearer. Queries go in tiles, in bounded memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rga_timm.data.matches import MatchCounts
from rga_timm.evaluation.compute import DEFAULT_TILE_MEMORY, Compute
from rga_timm.evaluation.distributed import gather_rows, share
from rga_timm.evaluation.ranking import scores
from rga_timm.evaluation.ranking.counting import GalleryIndex, Places, near_images
from rga_timm.evaluation.ranking.expansion import QueryExpansion
from rga_timm.evaluation.ranking.features import Ids, Images, check_images, check_same_width
from rga_timm.evaluation.ranking.ranking import Ranking, as_ranking
from rga_timm.evaluation.ranking.rerank import Reranking
from rga_timm.evaluation.ranking.single_shot import expected_cmc
from rga_timm.evaluation.ranking.tiles import Tiles

if TYPE_CHECKING:  # embedding imports the readers, which nothing here needs
    from rga_timm.evaluation.embedding.embed import Embeddings

_BYTES, _BYTES_OF_DRAWS = 8, 50  # that a distance takes, with all that is made of it


@dataclass(frozen=True, eq=False)
class ReidResult:
    """How well a gallery was ranked. All scores are fractions from 0 to 1.

    Attributes:
        mAP: mean over counted queries of the step AP (torchreid, fast-reid).
        mAP_trapezoid: mean of the trapezoid AP (Market-1501's script, scikit-learn < 0.19).
        mINP: mean inverse negative penalty (AGW).
        cmc: (max_rank,) `cmc[k - 1]` is rank-k. It alone is of the single-gallery-shot test if that
            was asked for; all else is of the whole gallery.
        num_valid_queries: queries with at least one true match: those that count.
        average_precision: (Q,) step AP of each query; NaN for a query that does not count.
        average_precision_trapezoid: (Q,) trapezoid AP; NaN likewise.
        inverse_negative_penalty: (Q,) INP; NaN likewise.
        first_match_rank: (Q,) rank of the nearest match, from 1; -1 if the query does not count.
    """

    mAP: float  # noqa: N815 - the name of the field
    mAP_trapezoid: float  # noqa: N815
    mINP: float  # noqa: N815
    cmc: np.ndarray
    num_valid_queries: int
    average_precision: np.ndarray
    average_precision_trapezoid: np.ndarray
    inverse_negative_penalty: np.ndarray
    first_match_rank: np.ndarray


def evaluate(
    query_features: np.ndarray | Tensor,
    query_pids: Ids,
    query_camids: Ids,
    gallery_features: np.ndarray | Tensor,
    gallery_pids: Ids,
    gallery_camids: Ids,
    *,
    metric: str = "cosine",
    rerank: Reranking | Mapping[str, Any] | None = None,
    expand: QueryExpansion | Mapping[str, Any] | None = None,
    single_gallery_shot: bool = False,
    max_rank: int = 50,
    tile_memory: int = DEFAULT_TILE_MEMORY,
    device: torch.device | str | None = None,
    distributed: bool = False,
    progress: bool = False,
) -> ReidResult:
    """Evaluate a re-identification model by its features.

    For each query the gallery images of the same person *and* the same camera are left out, and
    nothing else: distractors stay, as wrong answers. A query without a match is not counted. Images
    of pid -1 in the gallery are junk, as in Market-1501: they are left out before anything else.

    With `single_gallery_shot`, the CMC is that of a gallery with one random image of each person,
    as in CUHK03's classic protocol. The curve is the exact expectation over all draws, where others
    average some: no seed, no noise. Each pid is a person, also the distractors' 0. The other scores
    stay those of the whole gallery, as in torchreid.

    Gallery images at the same distance are found together: the precision is that after all of them
    (as scikit-learn's), and for CMC and INP the wrong ones come first. So the order of the gallery
    does not matter; only re-ranking and query expansion choose their neighbours by it among equals.
    Distances are summed in float64 and rounded to float32. The result is the same for every tile
    size and number of processes, on CPU and GPU (see `rga_timm.evaluation.ranking.distance`).

    Args:
        query_features: (Q, D), array or tensor, CPU or GPU.
        query_pids: (Q,) person ids, integers.
        query_camids: (Q,) camera ids, integers.
        gallery_features: (G, D).
        gallery_pids: (G,).
        gallery_camids: (G,).
        metric: `cosine`, 1 - cos (a zero vector is at distance 1 from all), or `euclidean`, on the
            features as they are.
        rerank: k-reciprocal re-ranking (Zhong et al., CVPR 2017) of what `metric` compares: None,
            `Reranking()` or a dict of its fields.
        expand: query expansion, before anything else: each query becomes a weighted mean of itself
            and its nearest gallery images. None, `QueryExpansion()` or a dict of its fields; for
            the cosine only.
        single_gallery_shot: whether the CMC is of galleries with one image of each person.
        max_rank: length of the CMC curve.
        tile_memory: bytes for the queries ranked at a time (at least one) and all that is computed
            about them. Beside it some 30 MB for a block of the gallery in float64. Single-gallery
            shots take about M I 24 bytes a query more, with I persons and at most M matches.
        device: where to compute; the gallery features' own by default.
        distributed: under torchrun each process of the default group ranks its share of the
            queries. All are given the same arguments, and get the same result.
        progress: show progress bars.

    Raises:
        ValueError: shapes that do not fit, an empty set, features that are not finite, an unknown
            metric, parameters of re-ranking or expansion that do not fit, no query with a match.
        TypeError: a parameter of the wrong type or with an unknown name.
    """
    ranking = as_ranking(metric, rerank, expand, single_gallery_shot)
    query = check_images("query", query_features, query_pids, query_camids)
    gallery = check_images("gallery", gallery_features, gallery_pids, gallery_camids)
    compute = Compute(
        device=device or gallery.features.device,
        tile_memory=tile_memory, distributed=distributed, progress=progress,
    )  # fmt: skip
    return _rank(query, gallery, ranking, compute, max_rank)


def rank_embeddings(
    query: "Embeddings", gallery: "Embeddings", ranking: Ranking, compute: Compute
) -> ReidResult:
    """Evaluate embeddings, as `evaluate` does arrays, with the CMC up to rank 50."""
    return _rank(
        check_images("query", query.features, query.pids, query.camids),
        check_images("gallery", gallery.features, gallery.pids, gallery.camids),
        ranking,
        compute,
        max_rank=50,
    )


def _rank(
    query: Images, gallery: Images, ranking: Ranking, compute: Compute, max_rank: int
) -> ReidResult:
    if max_rank < 1:
        raise ValueError(f"max_rank must be positive, got {max_rank}")
    check_same_width(query.features, gallery.features)
    matches = MatchCounts.of(query.pids, query.camids, gallery.pids, gallery.camids)
    if not matches.counted:
        raise ValueError(f"no query has a match: {matches.reasons()}")

    tiles = Tiles(query.features, gallery.features, ranking, compute)
    index = GalleryIndex(gallery.pids, gallery.camids)
    persons = np.unique(gallery.pids, return_inverse=True)[1]
    places, counts = [np.empty((0, len(Places._fields)), dtype=np.int64)], []
    curves = [np.empty((0, max_rank))]  # rows: one a query that has a match
    mine = share(len(query.pids), compute.distributed)
    cell = _BYTES_OF_DRAWS if ranking.single_gallery_shot else _BYTES
    for tile, distances in tiles.of(mine, cell=cell):
        pairs = index.same_person(query.pids[tile], query.camids[tile])
        found = near_images(distances.cpu().numpy(), pairs)
        if ranking.single_gallery_shot:
            kept = list(found)
            curves.append(expected_cmc(kept, persons, max_rank))
            found = iter(kept)
        for near in found:
            places.append(np.stack(near.places, axis=1))
            counts.append(len(near.match_columns))
    result = _summarise(
        Places(*gather_rows(np.concatenate(places), compute.distributed).T),
        gather_rows(np.array(counts, dtype=np.int64), compute.distributed),
        max_rank,
    )
    if ranking.single_gallery_shot:
        rows = gather_rows(np.concatenate(curves), compute.distributed)
        result = replace(result, cmc=rows.mean(axis=0))
    return result


def _summarise(places: Places, counts: np.ndarray, max_rank: int) -> ReidResult:
    """Scores of each query, and their means over the queries that have a match."""
    is_valid = counts > 0
    valid = places, counts[is_valid]
    first_ranks = scores.first_ranks(*valid)

    def of_all(values: np.ndarray, otherwise: float) -> np.ndarray:
        result = np.full(len(is_valid), otherwise, dtype=values.dtype)
        result[is_valid] = values
        return result

    step = scores.average_precision(*valid)
    trapezoid = scores.trapezoid_average_precision(*valid)
    inp = scores.inverse_negative_penalty(*valid)
    return ReidResult(
        mAP=float(step.mean()),
        mAP_trapezoid=float(trapezoid.mean()),
        mINP=float(inp.mean()),
        cmc=scores.cumulative_matches(first_ranks, max_rank),
        num_valid_queries=int(is_valid.sum()),
        average_precision=of_all(step, np.nan),
        average_precision_trapezoid=of_all(trapezoid, np.nan),
        inverse_negative_penalty=of_all(inp, np.nan),
        first_match_rank=of_all(first_ranks, -1),
    )
