"""Scores of rankings: each is a function of the places of the true matches.

All take `places` of the matches of several queries, one after the other, and `counts`, (V,), how
many of them each query has, at least one. All return a fraction in (0, 1] for each query, (V,)
float64. None depends on the order of images at the same distance.
"""

import numpy as np

from rga_timm.evaluation.ranking.counting import Places


def average_precision(places: Places, counts: np.ndarray) -> np.ndarray:
    """Step AP: the mean, over the true matches, of the precision at each.

    The convention of torchreid, fast-reid and today's scikit-learn. Images at the same distance are
    found together, as in scikit-learn: the precision is that after all of them.
    """
    return _means(places.right_up_to / places.up_to, counts)


def trapezoid_average_precision(places: Places, counts: np.ndarray) -> np.ndarray:
    """Trapezoid AP: the area under the precision-recall curve, its points joined by lines.

    The convention of Market-1501's own script (Zheng et al., ICCV 2015) and of scikit-learn before
    0.19, hence of papers up to about 2020. Recall moves at matches only, so each match adds
    1/m times the mean of the precision there and just before it; before the first image it is 1.
    It is below the step AP, by 0.5 to 2.7 points on the usual data sets.
    """
    before = np.ones(len(places.nearer))
    np.divide(places.right_nearer, places.nearer, out=before, where=places.nearer > 0)
    return _means((before + places.right_up_to / places.up_to) / 2, counts)


def inverse_negative_penalty(places: Places, counts: np.ndarray) -> np.ndarray:
    """INP: the precision at the hardest match, down to which a user must scroll (AGW).

    Ye et al., Deep Learning for Person Re-identification: A Survey and Outlook, TPAMI 2021.
    """
    return counts / places.up_to[np.cumsum(counts) - 1]


def first_ranks(places: Places, counts: np.ndarray) -> np.ndarray:
    """The rank of each query's nearest match, (V,) from 1: after wrong images as near as it."""
    first = np.cumsum(counts) - counts
    return (places.up_to - places.right_up_to + 1)[first]


def cumulative_matches(ranks: np.ndarray, max_rank: int) -> np.ndarray:
    """CMC: the share of queries with a true match among the k nearest, for k = 1 ... max_rank.

    Of (V,) ranks of each query's nearest match, from 1; (max_rank,) float64 that never fall.
    """
    hits = np.bincount(ranks[ranks <= max_rank], minlength=max_rank + 1)
    return np.cumsum(hits)[1:] / len(ranks)


def _means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of each query's values."""
    return np.add.reduceat(values, np.cumsum(counts) - counts) / counts
