"""The places of a query's true matches, without sorting the gallery.

Most images are further away than the last match, which takes one comparison; only the others are
sorted, by their distance alone. Images at the same distance share their places, so that the order
of the gallery does not matter.
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


class Places(NamedTuple):
    """Where the true matches stand among the images that count: (P,) int64 each.

    The matches of a query ascend. Without ties all four follow from the rank.
    """

    up_to: np.ndarray  # images that are not further away, the match itself included
    right_up_to: np.ndarray  # and how many of these are matches
    nearer: np.ndarray  # images that are nearer
    right_nearer: np.ndarray  # and how many of these are matches


class NearImages(NamedTuple):
    """The n gallery images that are not further away than a query's last match of m."""

    columns: np.ndarray  # (n,) int64, ascending; empty if the query has no match
    distances: np.ndarray  # (n,) float32
    match_columns: np.ndarray  # (m,) int64, the nearest match first
    match_distances: np.ndarray  # (m,) float32, ascending

    @property
    def places(self) -> Places:
        """The places of the m matches."""
        right, every = self.match_distances, np.sort(self.distances)
        return Places(
            np.searchsorted(every, right, "right"), np.searchsorted(right, right, "right"),
            np.searchsorted(every, right, "left"), np.searchsorted(right, right, "left"),
        )  # fmt: skip


def places_within(counts: np.ndarray) -> np.ndarray:
    """0 ... counts[0] - 1, then 0 ... counts[1] - 1, and so on."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def near_images(distances: np.ndarray, pairs: SamePerson) -> Iterator[NearImages]:
    """Yield the near images of each of T queries; `distances`, (T, G) float32, are overwritten."""
    rows, columns = pairs.matches
    match_distances = distances[rows, columns]
    order = np.lexsort((match_distances, rows))
    columns, match_distances = columns[order], match_distances[order]
    last = np.full(len(distances), -np.inf, dtype=np.float32)
    np.maximum.at(last, rows, match_distances)
    distances[pairs.left_out] = np.inf
    ends = np.searchsorted(rows, np.arange(len(distances) + 1)).tolist()
    for row, (begin, end) in enumerate(pairwise(ends)):
        near = np.flatnonzero(distances[row] <= last[row])
        matches = slice(begin, end)
        yield NearImages(near, distances[row, near], columns[matches], match_distances[matches])
