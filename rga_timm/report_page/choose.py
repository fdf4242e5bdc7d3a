"""Which queries a page shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rga_timm.evaluation.reports.per_query import PerQuery


def choose(columns: Sequence[PerQuery], count: int, seed: int) -> dict[int, str]:
    """The queries to show of one model's results or of two models', and why each."""
    if len(columns) == 1:
        precisions = np.array(columns[0]["average_precision"], dtype=float)  # None becomes NaN
        return choose_queries(precisions, count, seed)
    first, other = (of["first_match_rank"] for of in columns)
    return choose_differing(first, other, count=count, seed=seed)


def choose_queries(precisions: np.ndarray, count: int, seed: int = 0) -> dict[int, str]:
    """Choose the ``worst`` queries, the ``best``, and ``random`` ones, the worst ones first.

    By their average precision, (Q,), which is NaN of a query that does not count.
    """
    counted = np.flatnonzero(~np.isnan(precisions))
    order = counted[np.argsort(precisions[counted], kind="stable")]
    count = min(count, len(order))
    worst, best = order[: (count + 2) // 3], order[len(order) - (count + 1) // 3 :]
    rest = np.setdiff1d(counted, np.concatenate([worst, best]))
    drawn = np.random.default_rng(seed).permutation(rest)[: count - len({*worst, *best})]
    chosen = {int(i): "best" for i in best[::-1]} | {int(i): "random" for i in np.sort(drawn)}
    return {
        **{int(i): "worst" for i in worst},
        **{k: v for k, v in chosen.items() if k not in worst},
    }


def choose_differing(
    first: Sequence[int | None], other: Sequence[int | None], *, count: int, seed: int = 0
) -> dict[int, str]:
    """Those that one model finds and the other does not, and some drawn at random.

    By the ranks, (Q,), at which either finds the person; None of a query that does not count.

    Returns:
        ``first``, found at rank 1 by the one alone; ``second``, by the other alone; or ``random``.
        A third each, of the former two those that the one which fails finds the latest.
    """
    # By how much the one that fails fails, of those that only the one, and only the other, finds.
    only: dict[str, list[tuple[int, int]]] = {"first": [], "second": []}
    counted = []
    for i, (a, b) in enumerate(zip(first, other, strict=True)):
        if a is None or b is None:
            continue
        counted.append(i)
        if a == 1 < b:
            only["first"].append((-b, i))
        elif b == 1 < a:
            only["second"].append((-a, i))
    third = (count + 2) // 3
    chosen = {i: group for group, found in only.items() for _, i in sorted(found)[:third]}
    chosen = dict(list(chosen.items())[:count])
    rest = np.array([i for i in counted if i not in chosen], dtype=int)
    drawn = np.random.default_rng(seed).permutation(rest)[: count - len(chosen)]
    return chosen | {int(i): "random" for i in np.sort(drawn)}
