"""Look at a data set before it is trained on: what it is, and what is wrong with it.

    rga-timm check-data DIR
    rga-timm check-data DIR --dataset market1501 --json FILE

Without --dataset it finds out which data set it is, or says what is missing. Then it decodes every
image and compares the lists with what was published. Nothing on disk is changed. The exit status is
1 if there are errors, 0 if there are at most warnings.
"""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from rga_timm.cli.options import check_output_file, create_parser, non_negative_int
from rga_timm.data import ReidSplits, checks, create_dataset, parse_spec
from rga_timm.data.checks import Finding, ImageFacts
from rga_timm.data.specs import FORM
from rga_timm.data.text_file import write_text

INTERRUPTED = 130  # as shells report Ctrl-C


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = create_parser("check-data", __doc__)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder of the data set")
    add("--dataset", metavar=FORM, help="which one it is (default: find out)")
    text = "look for identical images, by a hash of their pixels (default: yes)"
    add("--hash", action=argparse.BooleanOptionalAction, default=True, help=text)
    processes, text = min(8, os.cpu_count() or 1), "processes that decode; 0: only this one"
    add(
        "--workers", type=non_negative_int, default=processes, help=f"{text} (default: %(default)s)"
    )
    add("--json", type=Path, metavar="FILE", help="write everything found here")
    return parser


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message for what would otherwise fail after minutes of work."""
    if args.json:
        check_output_file(args.json, parser)
    if args.dataset:
        try:
            parse_spec(args.dataset)
        except ValueError as error:
            parser.error(str(error))


def read(args: argparse.Namespace) -> tuple[ReidSplits | None, list[Finding]]:
    """Return the data set, or why there is none; print what it is."""
    if not args.dataset:
        found = checks.identify(args.folder)
        if found.splits is not None and found.info is not None:
            exact = not checks.check_counts(found.splits) and found.splits.published
            is_it = "is" if exact else "is in the layout of"
            print(f"{found.splits.root} {is_it} {found.info.title} ({found.info.name})")
            print(f"layout: {found.layout}")
            if found.why:
                print(f"note: {found.why}")
        return found.splits, list(found.findings)
    try:
        splits = create_dataset(args.dataset, args.folder)
    except (ValueError, OSError, ImportError) as error:
        unread = Finding("cannot_read", "error", f"{args.dataset} cannot be read: {error}")
        found = checks.identify(args.folder)
        if found.info is None:
            return None, [unread, *found.findings]
        text = f"{args.folder} can be read as {found.info.name}"
        return None, [unread, Finding("other", "note", text, f"--dataset {found.info.name}?")]
    print(f"{splits.root} is read as {splits.name}")
    return splits, []


def write_json(
    args: argparse.Namespace, splits: ReidSplits | None, findings: list[Finding], decoded: int
) -> None:
    """Write everything in plain types."""
    dataset = None
    if splits is not None:
        published = {split: counts._asdict() for split, counts in (splits.published or {}).items()}
        dataset = {"root": str(splits.root), **splits.describe(), "published": published}
    report = {
        "folder": str(args.folder),
        "dataset": dataset,
        "verdict": checks.verdict(findings),
        "images_decoded": decoded,
        "findings": [finding.as_dict() for finding in findings],
    }
    write_text(args.json, json.dumps(report, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = get_parser()
    args = parser.parse_args(argv)
    check(args, parser)
    # Warnings of the reader about counts are among the findings.
    logging.basicConfig(level=logging.ERROR, format="%(message)s")

    splits, findings = read(args)
    facts: dict[str, list[ImageFacts]] = {}
    interrupted = False
    if splits is not None:
        print(f"\n{checks.format_counts(splits)}\n", flush=True)
        findings += checks.check_counts(splits) + checks.check_people(splits)
        try:
            for split, reader in splits.readers.items():
                facts[split] = []
                options = {"workers": args.workers, "hashes": args.hash, "name": split}
                for fact in checks.inspect_images(reader, **options):
                    facts[split].append(fact)  # one by one: what is done counts after Ctrl-C
        except KeyboardInterrupt:
            interrupted = True
        findings += checks.check_images(splits, facts)

    decoded = sum(map(len, facts.values()))
    if interrupted:
        text = f"stopped after {decoded} images: what follows is about these"
        findings.insert(0, Finding("interrupted", "warning", text, "Run it again to the end."))
    for finding in findings:
        print("\n".join(finding.lines()))
    if args.json:
        write_json(args, splits, findings, decoded)
    verdict = checks.verdict(findings)
    print(f"verdict: {verdict}, {decoded} images decoded")
    return INTERRUPTED if interrupted else int(verdict == "errors")
