"""A part of Markdown pages that a script writes, between two lines that mark it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path


def update(
    argv: Sequence[str] | None,
    *,
    doc: str | None,
    pages: Sequence[Path],
    marks: tuple[str, str],
    part: Callable[[], str],
) -> int:
    """Run such a script: write its part of the pages, or with ``--check`` compare it.

    Args:
        argv: The command line.
        doc: What the script says of itself.
        pages: The pages that it stands in.
        marks: The lines before and after the part.
        part: Makes the part.

    Returns:
        The exit status: 1 if a page was compared and has another part.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument(
        "--file",
        type=Path,
        nargs="+",
        default=pages,
        help=f"(default: {', '.join(page.name for page in pages)})",
    )
    args = parser.parse_args(argv)
    start, end = marks
    try:
        texts = {page: page.read_text(encoding="utf-8") for page in args.file}
    except OSError as error:
        parser.error(str(error))
    for page, text in texts.items():
        if (text.count(start), text.count(end)) != (1, 1):
            parser.error(f"{page} has no lines {start} and {end}, or several, for the part")
    new = part()
    status = 0
    for page, text in texts.items():
        before, rest = text.split(start)
        _, after = rest.split(end)
        updated = f"{before}{start}\n{new}\n{end}{after}"
        if not args.check:
            page.write_text(updated, encoding="utf-8")
        elif updated != text:
            print(f"{page} is out of date: run the script without --check")
            status = 1
    return status
