"""The ranks of a query's true matches, by counting: nothing is sorted but the few matches.

Each gallery image is dropped into the gap between two matches where it belongs, and the gaps are
counted. Most images are further away than the last match, and one comparison is all they need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from rga_timm.evaluation.ranking.distance import order_keys
from rga_timm.evaluation.ranking.float32_scores import round_down

PairDistance = Callable[[np.ndarray, np.ndarray], np.ndarray]


class SamePerson(NamedTuple):
    """The gallery images that show the persons of T queries: pairs, query after query.

    Attributes:
        rows: (n,) int64 query, from 0 to T - 1, ascending.
        columns: (n,) int64 gallery image, ascending within each row.
        same_camera: (n,) bool: pairs that do not count. The others are the true matches.
    """

    rows: np.ndarray
    columns: np.ndarray
    same_camera: np.ndarray

    @property
    def matches(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the true matches."""
        return self.rows[~self.same_camera], self.columns[~self.same_camera]

    @property
    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the images that a query does not see at all."""
        return self.rows[self.same_camera], self.columns[self.same_camera]

    def of_rows(self, rows: slice) -> SamePerson:
        """The pairs of some of the queries, which are then numbered from 0."""
        begin, end = np.searchsorted(self.rows, [rows.start, rows.stop])
        return SamePerson(
            self.rows[begin:end] - rows.start, self.columns[begin:end], self.same_camera[begin:end]
        )


class GalleryIndex:
    """Finds a person's images without comparing every query with every image.

    Args:
        pids: (G,) int64.
        camids: (G,) int64.
    """

    def __init__(self, pids: np.ndarray, camids: np.ndarray) -> None:
        self._camids = camids
        self._order = np.argsort(pids, kind="stable")
        self._sorted_pids = pids[self._order]

    def same_person(self, pids: np.ndarray, camids: np.ndarray) -> SamePerson:
        """The pairs of T queries, (T,) int64 each."""
        starts = np.searchsorted(self._sorted_pids, pids, side="left")
        counts = np.searchsorted(self._sorted_pids, pids, side="right") - starts
        rows = np.repeat(np.arange(len(pids)), counts)
        columns = self._order[np.repeat(starts, counts) + places_within(counts)]
        return SamePerson(rows, columns, self._camids[columns] == camids[rows])


class MatchRanks(NamedTuple):
    """The ranks of the true matches of T queries, query after query.

    Attributes:
        ranks: (P,) int64, ascending for each query, from 0, among the images that it sees.
        counts: (T,) int64: P in all. 0 of a query without a match.
    """

    ranks: np.ndarray
    counts: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[MatchRanks]) -> MatchRanks:
        """Those of the first queries, then those of the next, and so on."""
        none = np.empty(0, dtype=np.int64)
        ranks, counts = zip((none, none), *parts, strict=True)
        return cls(np.concatenate(ranks), np.concatenate(counts))


def places_within(counts: np.ndarray) -> np.ndarray:
    """0 ... counts[0] - 1, then 0 ... counts[1] - 1, and so on."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def rank_matches(
    scores: np.ndarray,
    uncertainty: np.ndarray,
    pairs: SamePerson,
    exact: PairDistance,
    max_exact: int,
) -> MatchRanks | None:
    """Rank the true matches of T queries.

    Args:
        scores: (T, G) float32, the larger the nearer; overwritten.
        uncertainty: (T,) scores of a row that are further apart than this are in the right order.
        pairs: who is to be found.
        exact: from rows and columns of the tile, (n,) int64, to the distances that count. Equal
            ones rank in the order of the columns.
        max_exact: how many pairs may be looked at exactly.

    Returns:
        The ranks. None if more than `max_exact` pairs lie too close to call.
    """
    T, G = scores.shape
    rows, columns = pairs.matches
    match_scores = scores[rows, columns].astype(np.float64)
    # Only the others are counted: ranks among the matches themselves are known from sorting them.
    scores[pairs.rows, pairs.columns] = -np.inf

    # The others that are not further away than the last match for certain.
    last = np.full(T, np.inf)
    np.minimum.at(last, rows, match_scores - uncertainty[rows])
    near = np.flatnonzero(scores >= round_down(last)[:, None])
    near_scores = scores.ravel()[near]
    row_ends = np.searchsorted(near, np.arange(1, T + 1) * G).tolist()

    cells = _Cells(match_scores, rows, uncertainty)
    sizes = np.zeros(len(cells.gap), dtype=np.int64)
    places = []  # of each row's images, among its cells
    for row, (begin, end) in enumerate(zip([0, *row_ends[:-1]], row_ends, strict=True)):
        bounds = cells.bounds_of(row)
        places.append(np.searchsorted(bounds, near_scores[begin:end], side="right"))
        here = slice(cells.starts[row], cells.starts[row] + len(bounds) + 1)
        sizes[here] = np.bincount(places[row], minlength=len(bounds) + 1)
    gaps = np.zeros(len(rows) + T, dtype=np.int64)
    np.add.at(gaps, cells.gap[cells.is_certain], sizes[cells.is_certain])

    open_cells = np.flatnonzero(~cells.is_certain & (sizes > 0))
    if len(open_cells):
        open_rows = np.unique(cells.rows[open_cells])
        close = [  # the columns that are too close to call, of each of these rows
            near[slice(*((0, *row_ends)[row : row + 2]))][
                ~cells.is_certain[cells.starts[row] + places[row]]
            ]
            - row * G
            for row in open_rows.tolist()
        ]
        own = np.isin(rows, open_rows)
        if own.sum() + sum(map(len, close)) > max_exact:
            return None
        gaps += _settle(
            open_rows, close, rows[own], columns[own], cells.first_gap, len(gaps), exact
        )

    # A match's rank: the images in the gaps before it, and the matches before it.
    counts = np.bincount(rows, minlength=T)
    others = np.cumsum(gaps)
    others -= np.repeat(others[cells.first_gap] - gaps[cells.first_gap], counts + 1)
    is_last = np.zeros(len(gaps), dtype=bool)
    is_last[cells.first_gap + counts] = True
    return MatchRanks(others[~is_last] + places_within(counts), counts)


class _Cells:
    """What is known of an image from its score alone.

    Every match is an interval of scores. Of a row's 2 m bounds, sorted, those below an image's
    score put it into one of 2 m + 1 cells: the lower bounds among them count the matches that it
    may be nearer than, the upper ones those that it is nearer than for certain. Where both counts
    are the same, the cell lies in one gap between the matches, of which there are m + 1.

    Attributes:
        starts: (T,) each row's first cell; a list.
        rows: (C,) the row of each cell.
        gap: (C,) the gap that the cell lies in, counted over all rows, each row's nearest first.
        is_certain: (C,) whether it does.
        first_gap: (T,) each row's first gap.
    """

    def __init__(self, scores: np.ndarray, rows: np.ndarray, uncertainty: np.ndarray) -> None:
        T, P = len(uncertainty), len(scores)
        counts = np.bincount(rows, minlength=T)
        bounds = np.concatenate([scores - uncertainty[rows], scores + uncertainty[rows]])
        bound_rows = np.concatenate([rows, rows])
        order = np.lexsort((bounds, bound_rows))
        is_upper, bound_rows = order >= P, bound_rows[order]
        ends = np.cumsum(2 * counts)
        self._bounds, self._ends = bounds[order], [0, *ends.tolist()]
        self.first_gap = np.cumsum(counts) - counts + np.arange(T)
        starts = ends - 2 * counts + np.arange(T)
        self.starts = starts.tolist()
        self.rows = np.repeat(np.arange(T), 2 * counts + 1)
        # Each row's first cell is below all bounds: nothing is counted there.
        cell = np.arange(2 * P) + bound_rows + 1
        nearer, maybe_nearer = np.zeros((2, 2 * P + T), dtype=np.int64)
        nearer[cell], maybe_nearer[cell] = is_upper, ~is_upper
        nearer, maybe_nearer = (
            np.cumsum(x) - np.repeat(np.cumsum(x)[starts], 2 * counts + 1)
            for x in (nearer, maybe_nearer)
        )
        self.is_certain = nearer == maybe_nearer
        self.gap = self.first_gap[self.rows] + counts[self.rows] - nearer

    def bounds_of(self, row: int) -> np.ndarray:
        """(2 m,) ascending bounds of a row."""
        return self._bounds[self._ends[row] : self._ends[row + 1]]


def _settle(
    open_rows: np.ndarray,
    close: list[np.ndarray],
    match_rows: np.ndarray,
    match_columns: np.ndarray,
    first_gap: np.ndarray,
    n_gaps: int,
    exact: PairDistance,
) -> np.ndarray:
    """Put the images that were too close to call into their gaps, by exact distances.

    Args:
        open_rows: (R,) the rows that have such images, ascending.
        close: R arrays, these images' columns.
        match_rows: of the matches of these rows.
        match_columns: likewise.
        first_gap: (T,) each row's.
        n_gaps: of all rows.
        exact: as in `rank_matches`.

    Returns:
        (n_gaps,) int64, how many of them lie in each gap.
    """
    others = np.concatenate(close)
    other_rows = np.repeat(open_rows, list(map(len, close)))
    rows = np.concatenate([other_rows, match_rows])
    columns = np.concatenate([others, match_columns])
    distances = torch.from_numpy(exact(rows, columns))
    keys = order_keys(distances, torch.from_numpy(columns)).numpy()
    is_match = np.arange(len(rows)) >= len(others)
    order = np.lexsort((keys, rows))
    # In a row's order, an image's gap is the number of matches before it.
    matches_before = np.cumsum(is_match[order])
    ends = np.searchsorted(match_rows, rows[order])  # matches of the rows before
    gap = first_gap[rows[order]] + matches_before - ends
    return np.bincount(gap[~is_match[order]], minlength=n_gaps)
