"""The usual ways to rank and to re-rank, for benchmark_evaluation.py to compare with.

They hold what they need whole, as most code for re-identification does: all distances, all of them
sorted, matrices over all pairs of images. Both are written for this comparison, with numpy where it
is fast and with compiled loops where it is not.
"""

from __future__ import annotations

import runpy

import numba
import numpy as np


def evaluate_argsort(
    query: np.ndarray,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
) -> tuple[float, float]:
    """Mean AP and rank-1 of cosine distances, from all of them sorted."""
    distances = 1 - unit(query) @ unit(gallery).T
    return score_sorted(
        np.argsort(distances, axis=1), query_pids, query_camids, gallery_pids, gallery_camids
    )


@numba.njit
def score_sorted(
    order: np.ndarray,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
) -> tuple[float, float]:
    """Mean AP and rank-1 of sorted galleries, (Q, G)."""
    sum_of_aps, firsts, valid = 0.0, 0, 0
    for query in range(len(order)):
        seen, found, precisions = 0, 0, 0.0
        is_first = False
        for image in order[query]:
            same = gallery_pids[image] == query_pids[query]
            if same and gallery_camids[image] == query_camids[query]:
                continue
            seen += 1
            if same:
                found += 1
                precisions += found / seen
                is_first = is_first or seen == 1
        if found:
            valid += 1
            sum_of_aps += precisions / found
            firsts += is_first
    return sum_of_aps / valid, firsts / valid


def evaluate_dense(
    query: np.ndarray,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
) -> tuple[float, float]:
    """Mean AP and rank-1 of cosine distances re-ranked with matrices over all pairs of images."""
    distances = rerank_dense(unit(query), unit(gallery), 20, 6, 0.3)
    return score_sorted(
        np.argsort(distances, axis=1), query_pids, query_camids, gallery_pids, gallery_camids
    )


def evaluate_published(
    file: str,
    query: np.ndarray,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
) -> tuple[float, float]:
    """The same by a script of others, whose re_ranking takes Euclidean distances."""
    re_ranking = runpy.run_path(file)["re_ranking"]
    query, gallery = unit(query), unit(gallery)

    def euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = 2 - 2 * a @ b.T
        np.maximum(squared, 0, out=squared)
        return np.sqrt(squared, out=squared)

    distances = re_ranking(
        euclidean(query, gallery), euclidean(query, query), euclidean(gallery, gallery)
    )
    return score_sorted(
        np.argsort(distances, axis=1), query_pids, query_camids, gallery_pids, gallery_camids
    )


def rerank_dense(
    query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lambda_value: float
) -> np.ndarray:
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017) as the paper writes it down, in float32."""
    Q = len(query)
    images = np.concatenate([query, gallery])
    N = len(images)
    squares = (images**2).sum(1)
    original = squares[:, None] + squares - 2 * images @ images.T  # (N, N)
    original /= original.max(axis=1, keepdims=True)
    order = np.argsort(original, axis=1).astype(np.int32)  # (N, N)

    codes = np.zeros((N, N), dtype=np.float32)
    for image in range(N):
        base = reciprocal(order, image, k1)
        expanded = [base]
        for member in base:
            half = reciprocal(order, member, round(k1 / 2))
            if len(np.intersect1d(half, base, assume_unique=True)) > 2 / 3 * len(half):
                expanded.append(half)
        members = np.unique(np.concatenate(expanded))
        weights = np.exp(-original[image, members])
        codes[image, members] = weights / weights.sum()

    original = original[:Q, Q:].copy()
    averaged = np.empty_like(codes)
    for image in range(N):
        averaged[image] = codes[order[image, :k2]].mean(axis=0)
    codes = averaged
    del averaged, order

    containing = [codes[:, image].nonzero()[0] for image in range(N)]  # the inverted index
    for image in range(Q):
        shared = np.zeros(N, dtype=np.float32)
        for entry in codes[image].nonzero()[0]:
            others = containing[entry]
            shared[others] += np.minimum(codes[image, entry], codes[others, entry])
        jaccard = 1 - shared[Q:] / (2 - shared[Q:])
        original[image] = (1 - lambda_value) * jaccard + lambda_value * original[image]
    return original


def reciprocal(order: np.ndarray, image: int, k: int) -> np.ndarray:
    """Those of an image's k nearest (and itself) that have it among theirs."""
    forward = order[image, : k + 1]
    return forward[(order[forward, : k + 1] == image).any(axis=1)]


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)
