"""Single-gallery-shot CMC: the gallery is one random image of each person (CUHK03's classic test).

For every query, one of each person's images is drawn, and what counts is the rank of the right
person among them. Others draw some times and average (torchreid and open-reid ten times a query),
which leaves noise and needs a seed. Here is the exact limit of such averages. Given the drawn image
of the right person, everybody else is nearer independently, with the share of their images that are
nearer as the probability; an image at the same distance counts as nearer. How many are nearer has a
Poisson binomial distribution, which is built up person by person.
"""

from collections.abc import Sequence

import numpy as np

from rga_timm.evaluation.ranking.counting import NearImages


def expected_cmc(found: Sequence[NearImages], persons: np.ndarray, max_rank: int) -> np.ndarray:
    """The CMC curve of each query that has a match, expected over all draws.

    Args:
        found: What `near_images` found, query by query.
        persons: (G,) the gallery images' persons, 0 ... I - 1, each at least once.
        max_rank: Length K of the curve.

    Returns:
        (V, K) float64 probabilities that the right person is among the 1 ... K nearest persons.
    """
    sizes = np.bincount(persons)
    rows = [_nearer(near, persons, sizes) for near in found if len(near.columns)]
    # (P, K) for P matches: the probability that exactly 0 ... K - 1 persons are nearer.
    exactly = np.zeros((sum(map(len, rows)), max_rank))
    exactly[:, 0] = 1
    for nearer in np.concatenate([np.empty((0, len(sizes))), *rows]).T:
        one_more = nearer[:, None] * exactly
        exactly -= one_more
        exactly[:, 1:] += one_more[:, :-1]
    curves = np.minimum(np.cumsum(exactly, axis=1), 1)
    ends = np.cumsum([len(row) for row in rows])[:-1].tolist()
    means = [curve.mean(axis=0) for curve in np.split(curves, ends)] if rows else []
    return np.array(means).reshape(-1, max_rank)


def _nearer(near: NearImages, persons: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(m, I) probabilities that a drawn image of each person is nearer than each match."""
    shape = (len(near.match_columns), len(sizes))
    # An image is not further away than the first match from here on.
    match = np.searchsorted(near.match_distances, near.distances)
    cells = match * len(sizes) + persons[near.columns]
    nearer = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).cumsum(axis=0)
    probabilities = nearer / sizes
    # The right person's other images are not drawn along with this one.
    probabilities[:, persons[near.match_columns[0]]] = 0
    return probabilities
