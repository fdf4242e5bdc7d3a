"""Rank a gallery for every query, and score the rankings: CMC, mAP, mINP.

Only the ranks of a query's true matches matter, and a rank is the number of images that are
nearer. So nothing is sorted but the few matches: each gallery image is dropped into the gap between
matches where it belongs, and the gaps are counted. Queries go in tiles, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rga_timm.evaluation import distance, scores
from rga_timm.evaluation.features import Ids, check_features, check_ids, check_same_width
from rga_timm.evaluation.matches import MatchCounts
from rga_timm.evaluation.rerank import Reranking, k_reciprocal_rerank
from rga_timm.evaluation.single_shot import expected_cmc

METRICS = {"cosine": distance.Cosine, "euclidean": distance.SquaredEuclidean}


@dataclass(frozen=True, eq=False)
class ReidResult:
    """How well a gallery was ranked. All scores are fractions from 0 to 1.

    Attributes:
        mAP: mean over counted queries of the step AP (torchreid, fast-reid).
        mAP_trapezoid: mean of the trapezoid AP (Market-1501's script, scikit-learn < 0.19).
        mINP: mean inverse negative penalty (AGW).
        cmc: (max_rank,) `cmc[k - 1]` is rank-k. It alone is of single-gallery-shot tests where
            these were asked for; everything else is of the whole gallery always.
        num_valid_queries: queries with at least one true match: those that count.
        average_precision: (Q,) step AP of each query; NaN for a query that does not count.
        average_precision_trapezoid: (Q,) its trapezoid AP, NaN likewise.
        inverse_negative_penalty: (Q,) its INP, NaN likewise.
        first_match_rank: (Q,) rank of the nearest match, from 1; -1 for a query that does not
            count.
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
    single_gallery_shot: bool = False,
    max_rank: int = 50,
    query_tile: int = 128,
    device: torch.device | str | None = None,
) -> ReidResult:
    """Evaluate a re-identification model by its features.

    For each query the gallery images of the same person *and* the same camera are left out, and
    nothing else is: distractors stay, as wrong answers. A query without a match is not counted.

    With `single_gallery_shot`, the CMC is that of a gallery of one random image of each person, as
    in CUHK03's classic protocol: for each query, images are left out as always, one image is drawn
    of every person who is left, and the rank is the right person's. The curve is the exact
    expectation over all draws, where others average some: no seed, no noise. Each pid is a person,
    also the distractors' 0. The other scores stay those of the whole gallery, as in torchreid.

    Ties rank in the order of the gallery, as in a stable argsort of the distances. Distances are
    summed in float64 and rounded to float32, for features of any precision: the result is
    the same for every tile size, on CPU and GPU (`rga_timm.evaluation.distance` says how far).

    Args:
        query_features: (Q, D), array or tensor, CPU or GPU.
        query_pids: (Q,) person ids, integers.
        query_camids: (Q,) camera ids, integers.
        gallery_features: (G, D).
        gallery_pids: (G,).
        gallery_camids: (G,).
        metric: `cosine`, 1 - cos (a zero vector is at distance 1 from all), or `euclidean`, on the
            features as they are.
        rerank: k-reciprocal re-ranking (Zhong et al., CVPR 2017), on the features that `metric`
            compares: None for none, `Reranking()` or a dict of its fields. Holds (Q, G) floats.
        single_gallery_shot: whether the CMC is of galleries with one image of each person.
        max_rank: length of the CMC curve.
        query_tile: queries ranked at a time. Beside a float64 copy of the gallery's features,
            memory is about `query_tile * G * 50` bytes, and for single-gallery-shot tests about
            `query_tile * M * I * 24` more, with I persons and M the matches of the query that has
            most; the result does not depend on it.
        device: where to compute; the gallery features' own by default.

    Returns:
        The scores.

    Raises:
        ValueError: shapes that do not fit, an empty set, features that are not finite, an unknown
            metric, re-ranking parameters that do not fit, no query with a match.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if max_rank < 1 or query_tile < 1:
        raise ValueError(f"max_rank and query_tile must be positive: {max_rank}, {query_tile}")
    reranking = as_reranking(rerank)
    query = check_features("query", query_features)
    gallery = check_features("gallery", gallery_features)
    check_same_width(query, gallery)
    query_pids = check_ids("query_pids", query_pids, len(query))
    query_camids = check_ids("query_camids", query_camids, len(query))
    gallery_pids = check_ids("gallery_pids", gallery_pids, len(gallery))
    gallery_camids = check_ids("gallery_camids", gallery_camids, len(gallery))
    matches = MatchCounts.of(query_pids, query_camids, gallery_pids, gallery_camids)
    if not matches.counted:
        raise ValueError(f"no query has a match: {matches.reasons()}")

    device = distance.compute_device(device or gallery.device)
    distances = _distances(query, gallery, metric, reranking, device)
    ids = (query_pids, query_camids, gallery_pids, gallery_camids)
    q_pids, q_camids, g_pids, g_camids = (torch.from_numpy(i).to(device) for i in ids)
    persons, g_persons = g_pids.unique(return_inverse=True)
    q_persons = torch.searchsorted(persons, q_pids).clamp_max(len(persons) - 1)
    ranks: list[np.ndarray] = []  # one a query
    curves: list[np.ndarray] = []  # rows: one a query that has a match
    for start in range(0, len(query), query_tile):
        tile = slice(start, start + query_tile)
        same_person = q_pids[tile, None] == g_pids  # (T, G)
        same_camera = q_camids[tile, None] == g_camids
        is_match = same_person & ~same_camera
        gaps, counts = match_gaps(distances(tile), is_match, same_person & same_camera)
        ranks += match_ranks(gaps, counts)
        if single_gallery_shot and counts.any():
            curves.append(expected_cmc(gaps, counts, q_persons[tile], g_persons, max_rank))
    result = _summarise(ranks, max_rank)
    return replace(result, cmc=np.concatenate(curves).mean(axis=0)) if curves else result


def as_reranking(rerank: Reranking | Mapping[str, Any] | None) -> Reranking | None:
    """`rerank` of `evaluate`, checked, as a `Reranking` (or None)."""
    if rerank is None or isinstance(rerank, Reranking):
        return rerank
    if isinstance(rerank, Mapping):
        return Reranking(**rerank)
    raise TypeError(f"rerank must be None, a Reranking or a dict, got {type(rerank).__name__}")


def _distances(
    query: Tensor, gallery: Tensor, metric: str, reranking: Reranking | None, device: torch.device
) -> Callable[[slice], Tensor]:
    """A function from a slice of the queries to their (T, G) float32 distances on `device`."""
    if reranking is not None:
        query, gallery = query.to(device), gallery.to(device)
        if metric == "cosine":
            query, gallery = distance.unit_vectors(query), distance.unit_vectors(gallery)
        reranked = k_reciprocal_rerank(query, gallery, **asdict(reranking))
        return lambda tile: reranked[tile]
    to_gallery = METRICS[metric](gallery.to(device).double())
    return lambda tile: to_gallery(query[tile].to(device).double())


def match_gaps(distances: Tensor, is_match: Tensor, is_left_out: Tensor) -> tuple[Tensor, Tensor]:
    """Between which of its query's true matches every gallery image lies, by searching.

    Args:
        distances: (T, G) float32.
        is_match: (T, G) bool, the true matches.
        is_left_out: (T, G) bool, images that the query does not see at all; none is a match.

    Returns:
        (T, G) int64 gaps: in gap s lies an image that s matches precede (or are), so that it is
        nearer than match s, counted from 0, and all later ones. Images that are left out are in
        the last gap, the number of matches of the query that has most. And (T,) int64, how many
        matches each query has.
    """
    last = torch.iinfo(torch.int64).max
    keys = distance.order_keys(distances).masked_fill_(is_left_out, last)  # (T, G)

    # The matches' keys, sorted; rows with fewer matches than the longest, M, end in `last`.
    counts = is_match.sum(1)  # (T,)
    rows, columns = is_match.nonzero(as_tuple=True)  # row by row
    slots = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    match_keys = keys.new_full((len(keys), int(counts.max())), last)
    match_keys[rows, slots] = keys[rows, columns]
    match_keys = match_keys.sort(dim=1).values
    return torch.searchsorted(match_keys, keys, right=True), counts


def match_ranks(gaps: Tensor, counts: Tensor) -> list[np.ndarray]:
    """The ranks of each query's true matches, by counting.

    Args:
        gaps: (T, G), of `match_gaps`.
        counts: (T,), the same.

    Returns:
        For each of the T queries the ascending ranks, from 0, of its matches among the images
        that are not left out: (m,) int64, empty without matches.
    """
    # Images nearer than match s lie in gaps 0 ... s. One flat bincount for all rows:
    # deterministic on a GPU too.
    T, M = len(gaps), int(counts.max())
    cells = gaps + torch.arange(T, device=gaps.device)[:, None] * (M + 1)
    sizes = torch.bincount(cells.flatten(), minlength=T * (M + 1)).view(T, M + 1)
    ranks = sizes.cumsum(1).cpu().numpy()
    return [row[:count] for row, count in zip(ranks, counts.tolist(), strict=True)]


def _summarise(ranks: list[np.ndarray], max_rank: int) -> ReidResult:
    """Mean scores over the queries that have a match; `ranks` as `match_ranks` gives them."""
    first_ranks = np.array([r[0] if len(r) else -1 for r in ranks])
    step_aps, trapezoid_aps, inps = (
        np.array([score(r) if len(r) else np.nan for r in ranks])
        for score in (
            scores.average_precision,
            scores.trapezoid_average_precision,
            scores.inverse_negative_penalty,
        )
    )
    counted = first_ranks >= 0
    return ReidResult(
        mAP=float(np.mean(step_aps[counted])),
        mAP_trapezoid=float(np.mean(trapezoid_aps[counted])),
        mINP=float(np.mean(inps[counted])),
        cmc=scores.cumulative_matches(first_ranks[counted], max_rank),
        num_valid_queries=int(counted.sum()),
        average_precision=step_aps,
        average_precision_trapezoid=trapezoid_aps,
        inverse_negative_penalty=inps,
        first_match_rank=np.where(counted, first_ranks + 1, -1),
    )
