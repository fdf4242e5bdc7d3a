"""The ranks of a query's true matches, by counting: only the few matches are sorted.

Each gallery image falls into a gap between two matches, and the gaps are counted. Most images are
further away than the last match, which takes one comparison.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class SamePerson(NamedTuple):
    """The pairs of T queries and the gallery images of the same person, query after query."""

    rows: np.ndarray  # (n,) int64 query, from 0 to T - 1, ascending
    columns: np.ndarray  # (n,) int64 gallery image, ascending within each row
    same_camera: np.ndarray  # (n,) bool: does not count; the others are the true matches

    @property
    def matches(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the true matches."""
        return self.rows[~self.same_camera], self.columns[~self.same_camera]

    @property
    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the images that a query ignores."""
        return self.rows[self.same_camera], self.columns[self.same_camera]


class GalleryIndex:
    """Finds a person's images without comparing every query with every image; ids are (G,)."""

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


class NearImages(NamedTuple):
    """The gallery images that are not further away than a query's last match of m."""

    columns: np.ndarray  # (n,) int64, ascending; empty if the query has no match
    # (n,) int64, how many matches are at most as far: an image in gap s is nearer than match s,
    # counted from 0, and all later ones.
    gaps: np.ndarray
    matches: int  # m

    @property
    def ranks(self) -> np.ndarray:
        """(m,) int64 ascending ranks of the matches, from 0, among the images that count."""
        return np.cumsum(np.bincount(self.gaps, minlength=self.matches + 1))[: self.matches]


def places_within(counts: np.ndarray) -> np.ndarray:
    """0 ... counts[0] - 1, then 0 ... counts[1] - 1, and so on."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def near_images(distances: np.ndarray, pairs: SamePerson) -> Iterator[NearImages]:
    """Yield the near images of each of T queries. Ties rank in the order of the gallery.

    `distances`, (T, G) float32 and not negative, are overwritten.
    """
    rows, columns = pairs.matches
    match_distances = distances[rows, columns]
    match_keys = _order_keys(match_distances, columns)
    match_keys = match_keys[np.lexsort((match_keys, rows))]
    last = np.full(len(distances), -np.inf, dtype=np.float32)
    np.maximum.at(last, rows, match_distances)
    distances[pairs.left_out] = np.inf
    ends = np.searchsorted(rows, np.arange(len(distances) + 1)).tolist()
    for row, (begin, end) in enumerate(pairwise(ends)):
        near = np.flatnonzero(distances[row] <= last[row])
        keys = _order_keys(distances[row, near], near)
        gaps = np.searchsorted(match_keys[begin:end], keys, side="right")
        yield NearImages(near, gaps, end - begin)


def _order_keys(distances: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Integers, different within a row, that order images as a stable sort of distances would."""
    # The bits of a non-negative float32, read as an integer, grow with it. The column breaks ties.
    bits = (distances + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    return (bits.astype(np.int64) << 32) | columns
