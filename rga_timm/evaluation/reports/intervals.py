"""Bootstrap confidence intervals of scores, over people.

The queries of one person are similar, so intervals over queries would be too narrow. People are
drawn instead, each with all queries (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods
and their Application, 1997, section 3.8).

An interval says how the score would vary with other people as queries. The gallery and the trained
weights are fixed: it says nothing about another training run.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVEL, RESAMPLES, SEED = 0.95, 10_000, 0
_CELLS = 1_000_000  # of resamples x people at a time: about 32 MB


class Interval(NamedTuple):
    """A percentile interval, and how it was made."""

    low: float
    high: float
    level: float  # the share of such intervals that hold the true value
    resamples: int
    seed: int
    identities: int  # how many people were drawn from


class Difference(NamedTuple):
    """The difference b - a, with its interval."""

    value: float
    interval: Interval


def bootstrap_interval(
    values: np.ndarray,
    pids: np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """Compute the confidence interval of a mean over queries.

    Args:
        values: (Q,) a score of each query. Queries with NaN do not count.
        pids: (Q,) person ids.
        level: Between 0 and 1.
        resamples: How many times people are drawn.
        seed: Of the draws. The result depends on it, on the sorted pids and on the values.

    Raises:
        ValueError: Shapes that do not fit, fewer than two people whose queries count, or an invalid
            level or number of resamples.
    """
    if np.ndim(values) != 1:
        raise ValueError(f"values must be (Q,), got shape {np.shape(values)}")
    values = np.asarray(values)
    return bootstrap_intervals(values[:, None], pids, level, resamples, seed)[0]


def bootstrap_intervals(
    values: np.ndarray, pids: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Interval]:  # fmt: skip
    """Compute the intervals of S scores, (Q, S), from the same draws, as `bootstrap_interval`."""
    values, pids = np.asarray(values, dtype=np.float64), np.asarray(pids)
    if values.ndim != 2 or pids.shape != values.shape[:1]:
        raise ValueError(
            f"values must be (Q, S) and pids (Q,), got shapes {values.shape} and {pids.shape}"
        )
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(
            f"level must be between 0 and 1 and resamples positive: {level}, {resamples}"
        )
    if np.isinf(values).any():
        raise ValueError("values must be finite numbers, or NaN for a query that does not count")
    uncounted = np.isnan(values)
    if (uncounted.any(axis=1) != uncounted.all(axis=1)).any():
        raise ValueError("some queries count for one score and not for another")
    counted = ~uncounted.all(axis=1)
    people, person = np.unique(pids[counted], return_inverse=True)
    if len(people) < 2:
        raise ValueError(f"an interval needs queries of two people or more, got {len(people)}")

    # (people, S + 1): the sums of each person's scores, and how many queries they are of.
    columns = [*values[counted].T, np.ones(int(counted.sum()))]
    sums = np.stack([np.bincount(person, column, len(people)) for column in columns], axis=1)
    means = _resampled_means(sums, resamples, np.random.default_rng(seed))
    lows, highs = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        Interval(low, high, level, resamples, seed, len(people))
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True)
    ]


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    pids: np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """Compute the difference b - a of two means over the same queries, from the same draws.

    A hard query is hard for both models, so the interval is narrower than those of a and b suggest.
    If it excludes 0, the difference is significant at this level.

    `a` and `b`, (Q,), are the scores of each query; it counts in both or in none. The other
    arguments are those of `bootstrap_interval`.

    Raises:
        ValueError: As `bootstrap_interval`, or a query that counts in one of them only.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a and b must be of the same queries, got shapes {a.shape}, {b.shape}")
    if (np.isnan(a) != np.isnan(b)).any():
        raise ValueError("some queries count in one of a and b and not in the other")
    interval = bootstrap_interval(b - a, pids, level=level, resamples=resamples, seed=seed)
    return Difference(float(np.nanmean(b - a)), interval)


def _resampled_means(sums: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Compute (resamples, S) means over the queries of people drawn with replacement."""
    people = len(sums)
    means = []
    chunk = max(1, _CELLS // people)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(0, people, (rows, people))
        # How often each person is drawn: multinomial, without NumPy's loop over binomials.
        drawn += np.arange(rows)[:, None] * people
        counts = np.bincount(drawn.ravel(), minlength=rows * people).reshape(rows, people)
        # Not by BLAS, which adds in another order for a single draw than for several.
        totals = np.einsum("rp,ps->rs", counts, sums)
        means.append(totals[:, :-1] / totals[:, -1:])
    return np.concatenate(means)
