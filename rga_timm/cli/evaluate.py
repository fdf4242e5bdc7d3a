"""Evaluate a model on a re-identification data set.

    rga-timm evaluate local-dir:output/RUN/model --dataset market1501 --data-dir DIR
    rga-timm evaluate resnet50 --img-size 256 128 --feature pooled --flip --rerank
    rga-timm evaluate MODEL --dataset msmt17 viper:split=all --data-dir DIR DIR
    rga-timm evaluate --embeddings FOLDER                 # that rga-timm embed has written
    rga-timm evaluate --compare a.json b.json
    torchrun --nproc-per-node 4 -m rga_timm evaluate MODEL --dataset msmt17 --data-dir DIR

Any timm model works. Images are resized and normalised as the model's configuration says. Several
data sets make one table; split=all is the mean over a data set's partitions. Prints the scores in
percent; --output writes them, with everything that they depend on, as JSON. --compare compares
such files.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import distributed as dist

from rga_timm.cli import options
from rga_timm.cli.compare import add_compare_options, compare
from rga_timm.data import ReidReader, ReidSplits
from rga_timm.data.specs import leave_out_bad_images, pair_with_folders, read_partitions
from rga_timm.evaluation import (
    METRICS,
    ModelRecord,
    QueryExpansion,
    Report,
    Reranking,
    check_testable,
    evaluate_dataset,
    evaluate_embeddings,
    format_card,
    format_intervals,
    format_table,
    format_verification,
    log_warnings,
    save_reports,
)
from rga_timm.evaluation import protocol_of as stored_protocol
from rga_timm.evaluation.distributed import init_distributed
from rga_timm.evaluation.stored import read_testable_metadata
from rga_timm.hub import read_reid
from rga_timm.training.ranges import Range


def get_parser() -> argparse.ArgumentParser:
    """Define the options."""
    parser = options.create_parser("evaluate", __doc__)
    options.add_model_options(parser, optional=True)
    text = "stored embeddings of a data set to evaluate instead of MODEL; one or more"
    parser.add_argument(
        "--embeddings", type=Path, nargs="+", default=[], metavar="FOLDER", help=text
    )
    data = parser.add_argument_group("data")
    options.add_data_options(data)
    options.add_loading_options(data)
    options.add_preprocessing_options(data)
    test = parser.add_argument_group("test")
    options.add_feature_options(test)
    add, count = test.add_argument, options.positive_int
    add("--metric", default="cosine", choices=METRICS, help="distance (default: cosine)")
    add("--multi-query", action="store_true", help="one query a person and camera, by the mean")
    text = "replace each query by a weighted mean of itself and its nearest gallery images"
    add("--query-expansion", "--expand", dest="expand", action="store_true", help=text)
    add("--expand-k", type=count, default=10, metavar="K", help="number of images (default: 10)")
    text = "weight them by this power of their cosine; 0 for equal weights (default: 3)"
    add(
        "--expand-alpha",
        type=options.number(float, Range(minimum=0)),
        default=3.0,
        metavar="X",
        help=text,
    )
    add("--rerank", action="store_true", help="k-reciprocal re-ranking")
    add("--k1", type=count, default=20, help="of the re-ranking (default: 20)")
    add("--k2", type=count, default=6, help="of the re-ranking (default: 6)")
    text = "weight of the original distance in the re-ranking (default: 0.3)"
    add("--lambda-value", type=options.rate, default=0.3, metavar="X", help=text)
    text = "also verify pairs: true positive rate and threshold at these false positive rates"
    add("--fpr", type=options.rate, nargs="+", default=[], metavar="X", help=text)
    run = parser.add_argument_group("run")
    options.add_run_options(run)
    run.add_argument("--output", type=Path, metavar="JSON", help="write the report here")
    text = "keep the scores of each query out of it: a small file, without intervals in --compare"
    run.add_argument("--no-per-query", action="store_true", help=text)
    run.add_argument("--card", action="store_true", help="print all that the scores depend on")
    add_compare_options(parser)
    return parser


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exit with a message for errors that would otherwise appear after minutes of work."""
    if args.embeddings:
        check_embeddings(args, parser)
    elif args.model is None:
        parser.error("name a MODEL to evaluate, stored --embeddings, or reports to --compare")
    else:
        options.check_model(args, parser)
    if args.output:
        options.check_output_file(args.output, parser)
    if args.expand and args.metric != "cosine":
        parser.error("--query-expansion goes with --metric cosine")
    options.prepare_run(args, parser)


def check_embeddings(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exit with a message if an option is given that the stored embeddings already decide."""
    decided = (
        "model", "checkpoint", "no_pretrained", "dataset", "data_dir", "skip_bad_images",
        "img_size", "mean", "std", "channel_order", "feature", "flip", "scales", "amp_dtype",
    )  # fmt: skip
    if given := [name for name in decided if getattr(args, name) != parser.get_default(name)]:
        names = ["MODEL" if name == "model" else f"--{name.replace('_', '-')}" for name in given]
        parser.error(f"--embeddings does not go with {', '.join(names)}: they already decide that")
    folders = [folder.resolve() for folder in args.embeddings]
    if twice := [f for i, f in enumerate(folders) if f in folders[:i]]:
        parser.error(f"--embeddings names {twice[0]} twice")


def main(argv: Sequence[str] | None = None) -> list[Report]:
    """Evaluate as the command line says, and return the reports."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.compare:
        return compare(args, parser)
    args.device, args.rank, args.world_size = init_distributed(args.device)
    check(args, parser)
    is_main = args.rank == 0
    logging.basicConfig(level=logging.INFO if is_main else logging.ERROR, format="%(message)s")
    reports = evaluate(args, parser)
    if dist.is_initialized():
        dist.barrier()  # older torch hangs if one process leaves early
        dist.destroy_process_group()
    if is_main:
        finish(args, reports)
    return reports


def evaluate(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Report]:
    """Evaluate a model on each data set, or stored embeddings."""
    how: dict[str, Any] = {
        "compute": options.compute_of(args),
        "per_query": bool(args.output) and not args.no_per_query,
        "verify_at": args.fpr,
    }
    try:
        ranking: dict[str, Any] = {
            "metric": args.metric,
            "multi_query": args.multi_query,
            "expansion": QueryExpansion(args.expand_k, args.expand_alpha) if args.expand else None,
            "rerank": Reranking(args.k1, args.k2, args.lambda_value) if args.rerank else None,
        }
        if args.embeddings:
            stored = {folder: read_testable_metadata(folder) for folder in args.embeddings}
            return [
                evaluate_embeddings(folder, stored_protocol(metadata, **ranking), **how)
                for folder, metadata in stored.items()
            ]
        test_sets = read_test_sets(args)
        for parts in test_sets:
            check_fits(parts, ranking)
        model = options.create_model(args)
        config = options.preprocessing(args, model)
        options.feature_width(args, model, config)  # checks the scales
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    trained_on = read_reid(args.model).get("trained_on", ())
    record = ModelRecord(args.model, options.checkpoint_name(args), trained_on=trained_on)
    record = record.with_hash_of(model)
    protocol = options.protocol_of(args, config, **ranking)
    return [evaluate_dataset(model, parts, protocol, record, **how) for parts in test_sets]


def finish(args: argparse.Namespace, reports: list[Report]) -> None:
    """Print the reports, and write them."""
    log_warnings(reports)
    print(format_table(reports))
    for text in filter(None, (format_intervals(reports), format_verification(reports))):
        print(text)
    if args.card:
        print("", *map(format_card, reports), sep="\n\n")
    if args.output:
        save_reports(reports, args.output)


def read_test_sets(args: argparse.Namespace) -> list[list[ReidSplits]]:
    """Read the partitions of each data set, and check that they can be tested on."""
    test_sets = []
    for spec, folder in pair_with_folders(args.dataset, args.data_dir):
        partitions = read_partitions(spec, folder)
        if args.skip_bad_images:
            partitions = [leave_out_bad_images(part, args.workers)[0] for part in partitions]
        check_testable(partitions)
        test_sets.append(partitions)
    return test_sets


def check_fits(partitions: list[ReidSplits], ranking: dict[str, Any]) -> None:
    """Raise a ValueError if a data set is too small for the re-ranking or query expansion."""
    for part in partitions:
        queries = count_ranked(part.query, ranking["multi_query"])
        gallery = count_ranked(part.gallery)
        if ranking["rerank"]:
            ranking["rerank"].check_fits(queries + gallery)
        if ranking["expansion"]:
            ranking["expansion"].check_fits(gallery)


def count_ranked(reader: ReidReader, multi_query: bool = False) -> int:
    """Count the features of a split: images, tracklets, or persons under a camera."""
    if multi_query:
        return len({*zip(reader.pids.tolist(), reader.camids.tolist(), strict=True)})
    return len(np.unique(reader.tracklets)) if reader.has_tracklets else len(reader)
