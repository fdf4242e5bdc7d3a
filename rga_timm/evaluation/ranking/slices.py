"""Rows in parts."""

from __future__ import annotations

from collections.abc import Iterator

_MOST_ROWS = 128  # larger tiles are not faster


def slices(rows: range, step: int) -> Iterator[slice]:
    """Consecutive parts of rows, each of `step` but for the last, which is as small as it comes."""
    return (
        slice(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)
    )


def rows_of_a_tile(tile_memory: int, columns: int, cell: int) -> int:
    """How many rows fit into the memory, one at the least, where each number takes `cell` bytes."""
    return max(1, min(_MOST_ROWS, tile_memory // (cell * columns)))
