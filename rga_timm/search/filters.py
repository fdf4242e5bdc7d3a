"""Filters of a search, as the SQL that LanceDB takes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timezone
from typing import TYPE_CHECKING, Any

from rga_timm.search.columns import TIME, parse_time

if TYPE_CHECKING:
    import pyarrow as pa

CAMERA, CAMID = "camera", "camid"


def where_clause(
    schema: pa.Schema,
    *,
    cameras: Sequence[Any] = (),
    not_cameras: Sequence[Any] = (),
    after: str | None = None,
    before: str | None = None,
    where: str | None = None,
) -> str | None:
    """The condition that the images found have to fulfil, all parts of it at once.

    Args:
        schema: of the index.
        cameras: only images of these. They are cells of the column `camera` where there is one,
            and else camera ids.
        not_cameras: no images of these. Images of which it is not known are not left out.
        after: only images of this time, ISO 8601, or later.
        before: only images of times before this one.
        where: further SQL, in LanceDB's own terms.

    Returns:
        SQL, or None where nothing is asked for.

    Raises:
        ValueError: there are no times, or with an offset from UTC where this has none (or the
            reverse), or a camera is not of the column's type.
    """
    parts = [f"({where})"] if where else []
    column = CAMERA if CAMERA in schema.names else CAMID
    if cameras:
        parts.append(f"{column} IN ({_literals(schema, column, cameras)})")
    if not_cameras:
        left_out = _literals(schema, column, not_cameras)
        parts.append(f"({column} NOT IN ({left_out}) OR {column} IS NULL)")
    parts += [
        f"{TIME} {sign} {_time_literal(schema, text)}"
        for sign, text in ((">=", after), ("<", before))
        if text is not None
    ]
    return " AND ".join(parts) or None


def _literals(schema: pa.Schema, column: str, values: Sequence[Any]) -> str:
    import pyarrow as pa

    kind = schema.field(column).type
    if pa.types.is_integer(kind):
        try:
            return ", ".join(str(int(value)) for value in values)
        except ValueError as error:
            raise ValueError(f"cameras are whole numbers in this index: {error}") from error
    return ", ".join("'" + str(value).replace("'", "''") + "'" for value in values)


def _time_literal(schema: pa.Schema, text: str) -> str:
    if TIME not in schema.names:
        raise ValueError(
            "the index has no times: give it a table with the columns path and time when it is "
            "built (--columns)"
        )
    time, zone = parse_time(text), schema.field(TIME).type.tz
    if (time.tzinfo is None) != (zone is None):
        has = "say their offset from UTC" if zone else "have no offset from UTC"
        raise ValueError(f"the times in the index {has}, other than {text!r}")
    if zone:
        return f"timestamp '{time.astimezone(timezone.utc).replace(tzinfo=None).isoformat()}Z'"
    return f"timestamp '{time.isoformat()}'"
