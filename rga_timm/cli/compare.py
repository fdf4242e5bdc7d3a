"""Reports side by side, with confidence intervals of differences: rga-timm evaluate --compare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from rga_timm.evaluation import (
    DifferentProtocolsError,
    Report,
    format_card,
    format_comparison,
    load_reports,
    match_reports,
)


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the comparison."""
    group = parser.add_argument_group("compare", "Without a MODEL; nothing is evaluated.")
    text = "reports that --output wrote: differences are to the first"
    group.add_argument("--compare", type=Path, nargs="+", metavar="JSON", help=text)
    text = "compare reports of different tests, which is an error otherwise"
    group.add_argument("--allow-different-protocols", action="store_true", help=text)


def compare(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Report]:
    """Print the comparison, and return the reports."""

    def end(message: object) -> NoReturn:
        parser.exit(2, f"{parser.prog}: {message}\n")

    if args.model:
        end(f"--compare takes reports and no MODEL: {args.model}")
    if args.embeddings:
        end("--compare takes reports, and no --embeddings: evaluate them first, with --output")
    if args.output:
        end("--compare prints, and takes no --output: it names a report of an evaluation")
    if len(args.compare) < 2 or len(set(args.compare)) < len(args.compare):
        end("--compare takes two reports or more, each once")
    try:
        files = {str(path): load_reports(path) for path in args.compare}
        groups = match_reports(files)
        allow = args.allow_different_protocols
        texts = [format_comparison(group, allow_different=allow) for group in groups]
    except DifferentProtocolsError as error:
        end(f"{error}\n--allow-different-protocols compares them anyway")
    except (ValueError, OSError) as error:
        end(error)
    print(*texts, sep="\n\n\n")
    reports = [report for group in groups for report in group.values()]
    for file, found in files.items():
        if alone := [str(r.dataset["name"]) for r in found if not any(r is one for one in reports)]:
            print(f"\nNot compared, as it is not in all files: {', '.join(alone)} ({file})")
    if args.card:
        print("", *(format_card(report) for report in reports), sep="\n\n")
    return reports
