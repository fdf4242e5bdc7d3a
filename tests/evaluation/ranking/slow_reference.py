"""Slow, plain references, written from the protocols and independent of the package."""

from __future__ import annotations

from typing import Any

import numpy as np


def distances(query: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        query = query / np.linalg.norm(query, axis=1, keepdims=True)
        gallery = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
        return 1 - query @ gallery.T
    return np.sqrt(((query[:, None] - gallery[None]) ** 2).sum(-1))


Ranking = list[tuple[float, bool]]


def rank(
    dist: np.ndarray,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
) -> list[Ranking]:
    """For every query the distance and right / wrong of each image that is not left out.

    Nearest first, and wrong before right at the same distance.
    """
    rankings = []
    for q in range(len(dist)):
        row = []
        for g in range(dist.shape[1]):
            same_person = bool(gallery_pids[g] == query_pids[q])
            if same_person and gallery_camids[g] == query_camids[q]:
                continue
            row.append((float(dist[q, g]), same_person))
        rankings.append(sorted(row))
    return rankings


def curve(ranking: Ranking) -> list[tuple[float, float]]:
    """Recall and precision at every threshold: images at the same distance come together."""
    points = []
    for threshold in sorted({distance for distance, _ in ranking}):
        hits = [hit for distance, hit in ranking if distance <= threshold]
        points.append((sum(hits) / sum(hit for _, hit in ranking), sum(hits) / len(hits)))
    return points


def step_ap(ranking: Ranking) -> float:
    ap, old_recall = 0.0, 0.0
    for recall, precision in curve(ranking):
        ap += (recall - old_recall) * precision
        old_recall = recall
    return ap


def market1501_script_ap(ranking: Ranking) -> float:
    """The loop of Market-1501's own compute_AP, line by line."""
    ap, old_recall, old_precision = 0.0, 0.0, 1.0
    for recall, precision in curve(ranking):
        ap += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return ap


def first_rank(ranking: Ranking) -> int:
    return [hit for _, hit in ranking].index(True) + 1


def inverse_negative_penalty(ranking: Ranking) -> float:
    hits = [hit for _, hit in ranking]
    last = max(i for i, hit in enumerate(hits) if hit)
    return sum(hits) / (last + 1)


def summary(rankings: list[Ranking], max_rank: int) -> dict[str, Any]:
    valid = [ranking for ranking in rankings if any(hit for _, hit in ranking)]
    first = [first_rank(ranking) for ranking in valid]
    return {
        "mAP": np.mean([step_ap(ranking) for ranking in valid]),
        "mAP_trapezoid": np.mean([market1501_script_ap(ranking) for ranking in valid]),
        "mINP": np.mean([inverse_negative_penalty(ranking) for ranking in valid]),
        "cmc": [np.mean([rank <= k + 1 for rank in first]) for k in range(max_rank)],
        "num_valid_queries": len(valid),
    }


def zhong_rerank(
    query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lambda_value: float
) -> np.ndarray:
    """k-reciprocal re-ranking, section 3 of Zhong et al. 2017 with sets and dense matrices.

    As in the authors' code: squared distances over the row's maximum, a strict 2/3, codes of sum 1.
    """
    x = np.concatenate([query, gallery]).astype(np.float64)
    n = len(x)
    dist = ((x[:, None] - x[None]) ** 2).sum(-1)
    dist = dist / dist.max(axis=1, keepdims=True)
    order = np.argsort(dist, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> set[int]:
        """R(i, k), equation 3; an image counts as its own first neighbour."""
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    codes = np.zeros((n, n))
    for i in range(n):
        base = reciprocal(i, k1)
        expanded = set(base)
        for q in base:  # equation 4
            candidate = reciprocal(q, int(np.around(k1 / 2)))
            if len(base & candidate) > 2 / 3 * len(candidate):
                expanded |= candidate
        members = sorted(expanded)
        codes[i, members] = np.exp(-dist[i, members])  # equation 7
        codes[i] /= codes[i].sum()
    if k2 > 1:  # equation 11
        codes = np.stack([codes[order[i, :k2]].mean(axis=0) for i in range(n)])

    q = len(query)
    result = np.empty((q, n - q))
    for i in range(q):
        for j in range(q, n):
            smaller = np.minimum(codes[i], codes[j]).sum()  # equation 10
            larger = np.maximum(codes[i], codes[j]).sum()
            result[i, j - q] = (1 - lambda_value) * (1 - smaller / larger)
    return result + lambda_value * dist[:q, q:]  # equation 12
