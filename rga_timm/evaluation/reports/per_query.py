"""The scores of each query, for confidence intervals and paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

import numpy as np

from rga_timm.data import ReidReader
from rga_timm.evaluation.ranking.evaluate import ReidResult

# From a score of a report to the same of a query.
SCORES = {
    "mAP": "average_precision",
    "mAP_trapezoid": "average_precision_trapezoid",
    "mINP": "inverse_negative_penalty",
}
FIRST_MATCH = "first_match_rank"


class _Results(TypedDict):
    pid: list[int]
    average_precision: list[float | None]
    average_precision_trapezoid: list[float | None]
    inverse_negative_penalty: list[float | None]
    first_match_rank: list[int | None]


class PerQuery(_Results, total=False):
    """The scores of Q queries in columns of length Q; None for a query that does not count."""

    path: list[str]
    camid: list[int]
    tracklet: list[int]


def query_ids(reader: ReidReader) -> dict[str, list[Any]]:
    """Identify the queries of a split, in the order in which they are ranked, in columns.

    They are ``path``, ``pid`` and ``camid`` of each image, or of each tracklet's first image, with
    the number as ``tracklet``.
    """
    names = ["path", "pid", "camid"] + ["tracklet"] * reader.has_tracklets
    images = [reader.images[i] for i in first_images(reader)]
    return {name: [getattr(image, name) for image in images] for name in names}


def first_images(reader: ReidReader) -> list[int]:
    """Return the index of each image, or of each tracklet's first image, in order of appearance."""
    if not reader.has_tracklets:
        return [*range(len(reader))]
    first: dict[int, int] = {}
    for index, image in enumerate(reader.images):
        first.setdefault(image.tracklet, index)
    return [*first.values()]


def per_query_results(result: ReidResult, queries: Mapping[str, Sequence[Any]]) -> PerQuery:
    """Add the scores of each query to the columns of `query_ids`; check their length."""
    Q = len(result.average_precision)
    for name, column in queries.items():
        if len(column) != Q:
            raise ValueError(f"there are {Q} queries, and {name} is of {len(column)}")
    columns = {name: list(column) for name, column in queries.items()}
    for name in SCORES.values():
        scores = getattr(result, name).tolist()
        columns[name] = [None if np.isnan(score) else score for score in scores]
    ranks = result.first_match_rank.tolist()
    columns[FIRST_MATCH] = [rank if rank > 0 else None for rank in ranks]
    return cast(PerQuery, columns)


def score_columns(per_query: PerQuery, ranks: Sequence[int] = ()) -> dict[str, np.ndarray]:
    """Return mAP, mAP_trapezoid, mINP and rank-k for each k of `ranks`, of each query.

    Each is (Q,) float64, NaN for a query that does not count. Rank-k is 1 if a match is among the k
    nearest, else 0.
    """
    values: Mapping[str, Any] = per_query
    columns = {score: _floats(values[name]) for score, name in SCORES.items()}
    first = _floats(per_query["first_match_rank"])
    hits = {f"rank-{k}": np.where(np.isnan(first), np.nan, first <= k) for k in ranks}
    return columns | hits


def _floats(column: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in column], dtype=np.float64)
