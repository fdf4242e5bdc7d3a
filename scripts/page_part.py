"""A part of a Markdown page that a script writes, between two lines that mark it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path


def update(
    argv: Sequence[str] | None,
    *,
    doc: str | None,
    page: Path,
    marks: tuple[str, str],
    part: Callable[[], str],
) -> int:
    """Run such a script: write its part of the page, or with ``--check`` compare it.

    Args:
        argv: The command line.
        doc: What the script says of itself.
        page: The page.
        marks: The lines before and after the part.
        part: Makes the part.

    Returns:
        The exit status: 1 if the page was compared and has another part.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--file", type=Path, default=page, help=f"(default: {page.name})")
    args = parser.parse_args(argv)
    text = args.file.read_text(encoding="utf-8")
    start, end = marks
    if start not in text or end not in text:
        parser.error(f"{args.file} has no lines {start} and {end} for the part to stand between")
    before, rest = text.split(start)
    _, after = rest.split(end)
    updated = f"{before}{start}\n{part()}\n{end}{after}"
    if args.check and updated != text:
        print(f"{args.file} is out of date: run the script without --check")
        return 1
    if not args.check:
        args.file.write_text(updated, encoding="utf-8")
    return 0
