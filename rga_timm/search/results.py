"""What a search found, for the terminal and for files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from rga_timm.data import ReidImage, ReidReader
from rga_timm.data.checks import stack_sheets
from rga_timm.data.checks.contact_sheet import BACK, GAP, HEIGHT, INK, LABEL, thumbnail
from rga_timm.search.columns import TIME
from rga_timm.search.filters import CAMERA

Rows = Sequence[Mapping[str, Any]]  # of one query

_NARROWEST = 110  # pixels of a column, for its labels
_MOST_COLUMNS = 12  # results in a line
_LINES = 3  # of text below an image
_UNKNOWN = -1
_FRAME = (200, 0, 0)  # of the query


def format_results(queries: Sequence[str], found: Sequence[Rows]) -> str:
    """A table for each query: rank, similarity, and of what is known who, where and when.

    Args:
        queries: what each query is called.
        found: the rows of each, as `SearchIndex.query` gives them.
    """
    return "\n\n".join(
        "\n".join([name, *_format_rows(rows)]) for name, rows in zip(queries, found, strict=True)
    )


def save_results(
    file: str | Path,
    queries: Sequence[str],
    found: Sequence[Rows],
    about: Mapping[str, Any],
) -> None:
    """Write JSON: what is said `about` the search, and `queries` with the `results` of each.

    Times are ISO 8601 text.
    """
    pairs = zip(queries, found, strict=True)
    results = [{"query": name, "results": list(rows)} for name, rows in pairs]
    text = json.dumps({**about, "queries": results}, indent=2, default=_plain)
    Path(file).write_text(text + "\n", encoding="utf-8")


def result_sheet(
    queries: Sequence[str | Path], found: Sequence[Rows], root: str | Path | None = None
) -> Image.Image:
    """A picture: each query, framed, and what was found for it, the most similar first.

    Below each image stand rank and similarity, the camera if it is known, and the end of the path.

    Args:
        queries: the image file of each.
        found: the rows of each, as `SearchIndex.query` gives them.
        root: the folder that the paths found start from; by default that of each row.

    Returns:
        An RGB image. An image that cannot be read says so.

    Raises:
        ValueError: there are no queries.
    """
    if not queries:
        raise ValueError("there is nothing to show: no queries")
    return stack_sheets(
        [_sheet_of(Path(query), rows, root) for query, rows in zip(queries, found, strict=True)]
    )


def _format_rows(rows: Rows) -> list[str]:
    if not rows:
        return ["  nothing fulfils the conditions"]
    lines = [
        {
            "rank": str(row["rank"]),
            "similarity": f"{row['similarity']:.3f}",
            "camera": _camera(row),
            "pid": "" if row["pid"] == _UNKNOWN else str(row["pid"]),
            "time": _plain(row.get(TIME)) or "",
            "split": row["split"],
            "path": row["path"],
        }
        for row in rows
    ]
    shown = [name for name in lines[0] if any(line[name] for line in lines)]
    table = [{name: name for name in shown}, *lines]
    widths = {name: max(len(line[name]) for line in table) for name in shown}
    return [
        "  " + "  ".join([*(line[name].rjust(widths[name]) for name in shown[:-1]), line["path"]])
        for line in table
    ]


def _sheet_of(query: Path, rows: Rows, root: str | Path | None) -> Image.Image:
    """A query, and beside it its rows, in lines of some."""
    files = [Path(row["root"] if root is None else root) / row["path"] for row in rows]
    reader = ReidReader("", [ReidImage(str(f), _UNKNOWN, _UNKNOWN) for f in (query, *files)])
    pictures = [thumbnail(reader, index) for index in range(len(reader))]
    step = max(_NARROWEST, *(picture.width for picture in pictures)) + GAP
    line = HEIGHT + _LINES * LABEL + 2 * GAP
    across = min(len(rows), _MOST_COLUMNS)
    down = max(1, -(-len(rows) // _MOST_COLUMNS))
    sheet = Image.new("RGB", (GAP + (1 + across) * step, GAP + down * line), BACK)
    draw = ImageDraw.Draw(sheet)

    sheet.paste(pictures[0], (GAP, GAP))
    frame = (GAP, GAP, GAP + pictures[0].width - 1, GAP + pictures[0].height - 1)
    draw.rectangle(frame, outline=_FRAME, width=2)
    _write(draw, (GAP, GAP + HEIGHT), ["query", "", query.name], step)
    for number, (row, picture) in enumerate(zip(rows, pictures[1:], strict=True)):
        y, x = divmod(number, _MOST_COLUMNS)
        corner = (GAP + (1 + x) * step, GAP + y * line)
        sheet.paste(picture, corner)
        camera = _camera(row)
        labels = [
            f"{row['rank']}   {row['similarity']:.3f}",
            f"camera {camera}" if camera else "",
            row["path"],
        ]
        _write(draw, (corner[0], corner[1] + HEIGHT), labels, step)
    return sheet


def _write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: list[str], step: int) -> None:
    """Lines of text; of one that is too long the end."""
    font = ImageFont.load_default()
    for number, line in enumerate(lines):
        # Pillow's own font knows no more, and without FreeType others are an error.
        text = line.encode("latin-1", "replace").decode("latin-1")
        rest = text
        while rest and font.getlength(text) > step - GAP:
            rest = rest[1:]
            text = f"..{rest}"
        draw.text((corner[0], corner[1] + number * LABEL), text, fill=INK, font=font)


def _camera(row: Mapping[str, Any]) -> str:
    """As the user's table calls it, else its number; empty where it is not known."""
    camera = row[CAMERA] if CAMERA in row else row["camid"]
    return "" if camera in (None, _UNKNOWN) else str(camera)


def _plain(value: Any) -> str | None:
    """A value that JSON does not have, as text."""
    if value is None:
        return None
    return value.isoformat() if isinstance(value, datetime) else str(value)
