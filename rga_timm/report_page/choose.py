"""Choose the queries that a page shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rga_timm.evaluation.reports.per_query import PerQuery


def choose(columns: Sequence[PerQuery], count: int, seed: int) -> dict[int, str]:
    """Choose queries of one model's results or of two models', with the group of each."""
    if len(columns) == 1:
        precisions = np.array(columns[0]["average_precision"], dtype=float)  # None becomes NaN
        return choose_queries(precisions, count, seed)
    first, other = (of["first_match_rank"] for of in columns)
    return choose_differing(first, other, count=count, seed=seed)


def choose_queries(precisions: np.ndarray, count: int, seed: int = 0) -> dict[int, str]:
    """Choose the ``worst`` queries, the ``best``, and ``random`` ones, the worst ones first.

    `precisions`, (Q,), are their average precisions; NaN for a query that does not count.
    """
    counted = np.flatnonzero(~np.isnan(precisions))
    order = counted[np.argsort(precisions[counted], kind="stable")]
    count = min(count, len(order))
    worst, best = order[: (count + 2) // 3], order[len(order) - (count + 1) // 3 :]
    rest = np.setdiff1d(counted, np.concatenate([worst, best]))
    drawn = np.random.default_rng(seed).permutation(rest)[: count - len({*worst, *best})]
    groups = (("worst", worst), ("best", best[::-1]), ("random", np.sort(drawn)))
    chosen: dict[int, str] = {}
    for group, rows in groups:
        for i in rows.tolist():
            chosen.setdefault(i, group)
    return chosen


def choose_differing(
    first: Sequence[int | None], other: Sequence[int | None], *, count: int, seed: int = 0
) -> dict[int, str]:
    """Choose queries that only one model finds at rank 1, and random ones.

    `first` and `other`, (Q,), are the ranks of the first match; None if a query does not count.

    Returns:
        Up to a third each of ``first``, found by the first model alone; ``second``, by the other
        alone; and ``random``. The queries with the worst rank of the other model come first.
    """
    ranks = zip(first, other, strict=True)
    counted = {i: (a, b) for i, (a, b) in enumerate(ranks) if a is not None and b is not None}
    only_first = sorted((-b, i) for i, (a, b) in counted.items() if a == 1 < b)
    only_second = sorted((-a, i) for i, (a, b) in counted.items() if b == 1 < a)
    third = (count + 2) // 3
    chosen = {i: "first" for _, i in only_first[:third]}
    chosen |= {i: "second" for _, i in only_second[:third]}
    chosen = dict([*chosen.items()][:count])
    rest = np.array([i for i in counted if i not in chosen], dtype=int)
    drawn = np.random.default_rng(seed).permutation(rest)[: count - len(chosen)]
    return chosen | {int(i): "random" for i in np.sort(drawn)}
