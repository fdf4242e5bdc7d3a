"""Compose the conditions of a query, which all hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rga_timm.search.index import SearchIndex


def conditions(
    index: SearchIndex, *, where: str | None = None, camera: Sequence[str] = (),
    not_camera: Sequence[str] = (), after: datetime | None = None, before: datetime | None = None,
) -> str | None:  # fmt: skip
    """Compose conditions as SQL for `SearchIndex.query`; None without any.

    Args:
        index: What is searched.
        where: A condition in LanceDB's terms.
        camera: Only these, in the column `camera`, or else `camid`.
        not_camera: None of these.
        after: This time or later, in the column `time`.
        before: Before this time.

    Raises:
        ValueError: `where` is not one whole condition, or the index has no cameras or times.
    """
    table, names = index.table, index.table.schema.names
    parts = []
    if where is not None:
        _check_whole(index, where)
        parts.append(f"({where}\n)")  # on a line of its own, as it may end in a comment
    column = "camera" if "camera" in names else "camid"
    known = "camera IS NOT NULL" if column == "camera" else "camid >= 0"
    has_cameras = column == "camera" or index.metadata.get("cameras", True)
    if (camera or not_camera) and not (has_cameras and table.count_rows(known)):
        raise ValueError(
            "the index has no cameras to choose from: build it with --columns, a table of the "
            "images' path and camera"
        )
    for cameras, condition in (
        (camera, "CAST({} AS STRING) IN ({})"),
        (not_camera, "({0} IS NULL OR CAST({0} AS STRING) NOT IN ({1}))"),
    ):
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in cameras)
        parts += [condition.format(column, listed)] if cameras else []
    if (after or before) and "time" not in names:
        raise ValueError(
            "the index has no column time: build it with --columns, a table of the images' path "
            "and time"
        )
    parts += [f"time >= timestamp '{after.isoformat()}'"] if after else []
    parts += [f"time < timestamp '{before.isoformat()}'"] if before else []
    return " AND ".join(parts) or None


def _check_whole(index: SearchIndex, where: str) -> None:
    """Raise a ValueError unless LanceDB reads a condition to its end.

    Its parser ignores what follows a complete condition, such as a bracket that was never opened.
    So a condition that is whole fails when AND, and nothing more, follows it.
    """
    try:
        index.table.count_rows(f"({where}\n)")
    except ValueError as error:
        raise ValueError(f"--where {where!r}: {' '.join(str(error).split())}") from error
    try:
        index.table.count_rows(f"{where}\nAND")
    except ValueError:
        return
    raise ValueError(f"--where {where!r} is not one whole condition: do its brackets match?")
