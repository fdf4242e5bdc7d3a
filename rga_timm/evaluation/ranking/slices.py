"""Rows in parts."""

from __future__ import annotations

from collections.abc import Iterator


def slices(rows: range, step: int) -> Iterator[slice]:
    """Consecutive parts of rows, each of `step` but for the last, which is as small as it comes."""
    return (
        slice(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)
    )
