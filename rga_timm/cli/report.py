"""See an evaluation: one HTML file with scores, plots, and what the model finds.

    rga-timm report local-dir:output/RUN/model --dataset market1501 --data-dir DIR
    rga-timm report MODEL --output report.html --queries 90 --budget-mb 30
    rga-timm report MODEL --against OTHER           # what one finds and the other does not
    rga-timm report MODEL --blur-faces              # or --no-images, to be passed on

The file opens in any browser, without a network. It shows the worst, the best and some random
queries with their nearest gallery images, right and wrong ones marked, and the spatial attention of
an RGA model; the scores with all that they depend on, the CMC curve, the distances of pairs, rank-1
by camera; and a table of all queries. For two models it shows the queries that only one finds.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rga_timm.cli import options
from rga_timm.data import ReidSplits
from rga_timm.data.specs import pair_with_folders, read_partitions
from rga_timm.evaluation import METRICS, ModelRecord, check_testable, format_table, log_warnings
from rga_timm.hub import read_reid
from rga_timm.hub.model_source import public_name
from rga_timm.report_page import PageOptions, Side, evaluate_side, write_page


def get_parser() -> argparse.ArgumentParser:
    """Define the options."""
    parser = options.create_parser("report", __doc__)
    options.add_model_options(parser)
    data = parser.add_argument_group("data")
    options.add_data_options(data)
    options.add_loading_options(data)
    options.add_preprocessing_options(data)
    test = parser.add_argument_group("test")
    options.add_feature_options(test)
    text = "distance (default: cosine)"
    test.add_argument("--metric", default="cosine", choices=METRICS, help=text)
    page = parser.add_argument_group("page")
    add, count = page.add_argument, options.positive_int
    text = "compare with this model, of its own weights and image size: what only one finds"
    add("--against", metavar="MODEL", help=text)
    add("--output", type=Path, default=Path("report.html"), help="(default: %(default)s)")
    add("--queries", type=count, default=60, help="with pictures (default: %(default)s)")
    add("--top", type=count, default=10, help="nearest of each (default: %(default)s)")
    text = "size of the file; fewer queries are shown if it is too small (default: 20)"
    add("--budget-mb", type=options.positive_float, default=20.0, metavar="MB", help=text)
    pictures = page.add_mutually_exclusive_group()
    text = "blur the upper fifth of every picture"
    pictures.add_argument("--blur-faces", action="store_true", help=text)
    pictures.add_argument("--no-images", action="store_true", help="no pictures at all")
    options.add_run_options(parser.add_argument_group("run"))
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Write the page as the command line says, and return its path."""
    parser = get_parser()
    args = parser.parse_args(argv)
    # The other model brings its own weights and image size.
    other = argparse.Namespace(**{**vars(args), "model": args.against, "checkpoint": None})
    other.no_pretrained, other.img_size = False, None
    runs = [args, other] if args.against else [args]
    for run in runs:
        options.check_model(run, parser)
    options.prepare_run(args, parser)
    options.check_output_file(args.output, parser, ".html")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        (spec, folder), *others = pair_with_folders(args.dataset, args.data_dir)
        partitions = read_partitions(spec, folder)
        if others or len(partitions) > 1:
            raise ValueError("a page is of one data set, and one of its partitions")
        check_testable(partitions)
        models = [options.create_model(run) for run in runs]
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    sides = [evaluate(run, model, partitions[0]) for run, model in zip(runs, models, strict=True)]
    reports = [side.report for side in sides]
    log_warnings(reports)
    shown = PageOptions(args.queries, args.top, args.budget_mb, args.blur_faces, args.no_images)
    try:
        written = write_page(args.output, partitions[0], sides, options=shown)
    except ValueError as error:
        parser.error(str(error))
    size = (
        f"{written['queries']} queries with their nearest images, {written['bytes'] / 1e6:.1f} MB"
    )
    print(f"{format_table(reports)}\n\n{args.output}: {size}")
    return args.output


def evaluate(args: argparse.Namespace, model: Any, splits: ReidSplits) -> Side:
    """Evaluate a model for the page."""
    config = options.preprocessing(args, model)
    protocol = options.protocol_of(args, config, metric=args.metric)
    name, checkpoint = public_name(args.model), options.checkpoint_name(args)
    trained_on = read_reid(args.model).get("trained_on", ())
    record = ModelRecord(name, checkpoint, trained_on=trained_on)
    return evaluate_side(model, splits, protocol, record, compute=options.compute_of(args))
