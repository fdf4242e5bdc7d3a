"""Markdown tables that can be read as plain text too."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]], text: int) -> str:
    """Format a header and rows: the first `text` columns to the left, the others to the right."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * w if i < text else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = []
    for row in [rows[0], rule, *rows[1:]]:
        cells = [f"{c:<{w}}" for c, w in zip(row[:text], widths[:text], strict=True)]
        cells += [f"{c:>{w}}" for c, w in zip(row[text:], widths[text:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
