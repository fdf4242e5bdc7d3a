"""Scores of rankings: each is a function of the ranks of the true matches.

All take `ranks`, (P,), of several queries, one after the other: ascending for each query, among the
gallery images that count, from 0; and `counts`, (V,), how many of them each query has, at least
one. All return a fraction in (0, 1] for each query, (V,) float64.
"""

import numpy as np

from rga_timm.evaluation.ranking.counting import places_within


def average_precision(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Step AP: the mean, over the true matches, of the precision at each.

    The convention of torchreid, fast-reid and today's scikit-learn.
    """
    return _means((places_within(counts) + 1) / (ranks + 1), counts)


def trapezoid_average_precision(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Trapezoid AP: the area under the precision-recall curve, its points joined by lines.

    The convention of Market-1501's own script (Zheng et al., ICCV 2015) and of scikit-learn before
    0.19, hence of papers up to about 2020. Recall moves at matches only, so each match adds
    1/m times the mean of the precision there and just before it; before the first image it is 1.
    It is below the step AP, by 0.5 to 2.7 points on the usual data sets.
    """
    found_before = places_within(counts)
    before = np.ones(len(ranks))
    np.divide(found_before, ranks, out=before, where=ranks > 0)
    return _means((before + (found_before + 1) / (ranks + 1)) / 2, counts)


def inverse_negative_penalty(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """INP: the precision at the hardest match, down to which a user must scroll (AGW).

    Ye et al., Deep Learning for Person Re-identification: A Survey and Outlook, TPAMI 2021.
    """
    return counts / (ranks[np.cumsum(counts) - 1] + 1)


def cumulative_matches(first_ranks: np.ndarray, max_rank: int) -> np.ndarray:
    """CMC: the share of queries with a true match among the k nearest, for k = 1 ... max_rank.

    Of (V,) ranks of each query's nearest match, from 0; (max_rank,) float64 that never fall.
    """
    hits = np.bincount(first_ranks[first_ranks < max_rank], minlength=max_rank)
    return np.cumsum(hits) / len(first_ranks)


def _means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of each query's values."""
    return np.add.reduceat(values, np.cumsum(counts) - counts) / counts
