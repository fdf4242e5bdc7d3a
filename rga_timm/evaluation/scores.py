"""What one query's ranking is worth: each score is a function of the ranks of the true matches."""

from __future__ import annotations

import numpy as np


def average_precision(ranks: np.ndarray) -> float:
    """Step AP: the mean, over the true matches, of the precision at each.

    The convention of torchreid, fast-reid and today's scikit-learn.

    Args:
        ranks: (m,) ascending ranks of the m > 0 matches among the gallery images that count; the
            nearest image has rank 0.

    Returns:
        A fraction in (0, 1].
    """
    found = np.arange(1, len(ranks) + 1)
    return float(np.mean(found / (ranks + 1)))


def trapezoid_average_precision(ranks: np.ndarray) -> float:
    """Trapezoid AP: the area under the precision-recall curve, its points joined by lines.

    The convention of Market-1501's own script (Zheng et al., ICCV 2015) and of scikit-learn before
    0.19, hence of papers up to about 2020. Recall moves at matches only, so each match adds
    1/m times the mean of the precision there and just before it; before the first image it is 1.
    It is below the step AP, by 0.5 to 2.7 points on the usual data sets.

    Args:
        ranks: as in `average_precision`.

    Returns:
        A fraction in (0, 1].
    """
    found = np.arange(1, len(ranks) + 1)
    before = np.ones(len(ranks))
    np.divide(found - 1, ranks, out=before, where=ranks > 0)
    return float(np.mean((before + found / (ranks + 1)) / 2))


def inverse_negative_penalty(ranks: np.ndarray) -> float:
    """INP: the precision at the hardest match, which everyone must scroll down to (AGW).

    Ye et al., Deep Learning for Person Re-identification: A Survey and Outlook, TPAMI 2021.

    Args:
        ranks: as in `average_precision`.

    Returns:
        A fraction in (0, 1].
    """
    return float(len(ranks) / (ranks[-1] + 1))


def cumulative_matches(first_ranks: np.ndarray, max_rank: int) -> np.ndarray:
    """CMC: the share of queries with a true match among the k nearest, for k = 1 ... max_rank.

    Args:
        first_ranks: (n,) rank of each query's nearest match, from 0.
        max_rank: the length of the curve.

    Returns:
        (max_rank,) float64 fractions, never falling.
    """
    hits = np.bincount(first_ranks[first_ranks < max_rank], minlength=max_rank)
    return np.cumsum(hits) / len(first_ranks)
