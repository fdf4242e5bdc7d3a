"""Single-gallery-shot CMC: the gallery is one random image of each person (CUHK03's classic test).

For every query, one of each person's images is drawn, and what counts is the rank of the right
person among them. Others draw it some times and average (torchreid and open-reid ten times a
query), which leaves noise, and a seed to be reported. Here is what such averages tend to, exactly.
Given the image of the right person, everybody else is nearer or not independently of each other,
with the share of his images that are nearer as the probability. The number of those who are nearer
has a Poisson binomial distribution; it is built up person by person.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def expected_cmc(
    gaps: Tensor, counts: Tensor, query_persons: Tensor, gallery_persons: Tensor, max_rank: int
) -> np.ndarray:
    """The CMC curve of each query that has a match, expected over all draws.

    Args:
        gaps: (T, G) int64, of every gallery image how many of its query's M matches at the most are
            nearer or itself, as `ranking.match_gaps` gives them.
        counts: (T,) matches of each query.
        query_persons: (T,) the queries' persons, numbered as those of the gallery. What stands
            there for queries without a match does not matter, but it must be such a number.
        gallery_persons: (G,) the images' persons, 0 ... I - 1, each at least once.
        max_rank: length K of the curve.

    Returns:
        (V, K) float64 probabilities that the right person is among the 1 ... K nearest of all
        persons, of the V queries with a match in their order.
    """
    T, M = len(gaps), int(counts.max())
    sizes = torch.bincount(gallery_persons)  # (I,)
    persons = len(sizes)

    # How many images of each person lie in each gap, then how many are nearer than each match.
    cells = torch.arange(T, device=gaps.device)[:, None] * (M + 1) + gaps
    cells = (cells * persons + gallery_persons).flatten()
    nearer = torch.bincount(cells, minlength=T * (M + 1) * persons).view(T, M + 1, persons)
    nearer = nearer.cumsum(1)

    rows = torch.arange(T, device=gaps.device).repeat_interleave(counts)  # (P,) of P matches
    slots = torch.arange(len(rows), device=gaps.device) - (counts.cumsum(0) - counts)[rows]
    probabilities = nearer[rows, slots] / sizes.double()  # (P, I)
    # The right person's other images are not in a gallery with this one.
    probabilities.scatter_(1, query_persons[rows, None], 0.0)

    # (P, K): that exactly 0 ... K - 1 persons are nearer.
    exactly = probabilities.new_zeros(len(rows), max_rank)
    exactly[:, 0] = 1
    for person in range(persons):
        one_more = probabilities[:, person, None] * exactly
        exactly -= one_more
        exactly[:, 1:] += one_more[:, :-1]

    # NumPy sums each query's rows in the same order, whatever the tile.
    curves = np.minimum(np.cumsum(exactly.cpu().numpy(), axis=1), 1)
    ends = np.cumsum(counts.cpu().numpy())[:-1]
    return np.array([rows.mean(axis=0) for rows in np.split(curves, ends) if len(rows)])
