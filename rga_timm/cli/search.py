"""Search for people among stored embeddings.

    rga-timm embed MODEL --images photos --output embeddings       # what is searched
    rga-timm search build gallery embeddings --columns photos.csv  # path,camera,time,...
    rga-timm search query gallery someone.jpg --camera 3 5 --after 2024-05-01T12:00
    rga-timm search query gallery a.jpg b.jpg --json found.json --page found.html
    rga-timm search append gallery more-embeddings --columns more.csv
    rga-timm search index gallery           # approximate: faster among many images
    rga-timm search info gallery

LanceDB keeps the index in a folder, or in object storage (s3://, gs://, az://). The model of the
index embeds image files as it did the index's images. Appended images are found at once; `optimize`
puts them into the approximate index.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np

from rga_timm.cli import options
from rga_timm.cli.result_cards import describe_row, search_page
from rga_timm.data import ReidImage, ReidReader, find_bad_images
from rga_timm.data.text_file import write_text
from rga_timm.evaluation import hash_weights, iter_embeddings, protocol_of, read_metadata
from rga_timm.evaluation.dataset import embed_split
from rga_timm.search import (
    NPROBES,
    REFINE_FACTOR,
    Kind,
    SearchIndex,
    check_same_features,
    conditions,
)

_logger = logging.getLogger("search")
ON_PAGE = 50  # queries
COMMANDS = {
    "build": "make an index of stored embeddings",
    "append": "add further embeddings of the same model",
    "index": "make the search approximate, or exact again",
    "optimize": "put appended images into the approximate index",
    "info": "show what is in the index",
    "query": "find the most similar images",
}


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = options.create_parser("search", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        add = command.add_argument
        add("index", metavar="INDEX", help="a folder, or s3://, gs://, az://...")
        if name in ("build", "append"):
            add("embeddings", type=Path, help="a folder that rga-timm embed has written")
            add("--splits", nargs="+", default=[], help="only these (default: all)")
            add("--columns", metavar="FILE", help="CSV or Parquet: path, and camera, time, ...")
        if name == "build":
            add("--overwrite", action="store_true", help="replace an index that is there")
        if name == "append":
            add("--replace", action="store_true", help="images that are there (default: keep them)")
        if name == "index":
            add("--kind", default="ivf_rq", choices=get_args(Kind), help="(default: ivf_rq)")
            add("--partitions", type=options.positive_int, metavar="N", help="(default: by rows)")
        if name == "query":
            add_query_options(command)
    return parser


def add_query_options(parser: argparse.ArgumentParser) -> None:
    """Add options for the query, its conditions and its results."""
    add = parser.add_argument
    add("images", nargs="*", type=Path, metavar="IMAGE", help="queries")
    add("--embeddings", type=Path, metavar="FOLDER", help="stored embeddings as queries instead")
    add("--splits", nargs="+", default=[], help="of --embeddings, only these (default: all)")
    options.add_model_options(parser, "--model")
    add("--batch-size", type=options.positive_int, default=32, help="(default: 32)")
    add("--workers", type=options.non_negative_int, default=0, help="loader processes (default: 0)")
    options.add_run_options(parser)
    add = parser.add_argument_group("conditions").add_argument
    add("--camera", nargs="+", default=[], metavar="C", help="only these")
    add("--not-camera", nargs="+", default=[], metavar="C", help="none of these")
    time = datetime.fromisoformat
    add("--after", type=time, metavar="TIME", help="this time or later, ISO 8601")
    add("--before", type=time, metavar="TIME", help="before this time")
    add("--where", metavar="SQL", help="in LanceDB's terms: \"split = 'gallery' AND pid = 3\"")
    add = parser.add_argument_group("search").add_argument
    add("-k", type=options.positive_int, default=10, help="results (default: 10)")
    add("--exact", action="store_true", help="do not use the approximate index")
    number, text = options.positive_int, "partitions of the approximate index to search"
    add("--nprobes", type=number, default=NPROBES, metavar="N", help=f"{text} (default: {NPROBES})")
    text = f"compare N times k candidates by their embeddings (default: {REFINE_FACTOR})"
    add("--refine-factor", type=number, default=REFINE_FACTOR, metavar="N", help=text)
    add = parser.add_argument_group("output").add_argument
    add("--json", type=Path, metavar="FILE", help="write the results here")
    add("--page", type=Path, metavar="FILE.html", help="show them here, with the images")
    add("--root", type=Path, metavar="DIR", help="where the images are now")


def main(argv: Sequence[str] | None = None) -> Any:
    """Run the command; return the results, or what is in the index."""
    parser = get_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if args.command == "query":
            return run_query(args, parser)
        if args.command == "build":
            what = {"columns": args.columns, "splits": args.splits, "overwrite": args.overwrite}
            index = SearchIndex.build(args.index, args.embeddings, **what)
        else:
            index = SearchIndex(args.index)
        if args.command == "append":
            what = {"columns": args.columns, "splits": args.splits, "replace": args.replace}
            print(f"{index.append(args.embeddings, **what):,} images more")
        elif args.command == "index":
            index.create_index(args.kind, num_partitions=args.partitions)
        elif args.command == "optimize":
            index.table.optimize()
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        _logger.warning("Interrupted: the index is as it was.")
        sys.exit(130)
    info = index.info()
    print(json.dumps(info, indent=2) if args.command == "info" else f"{len(index):,} images")
    return info


def run_query(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Any]:
    """Search, and show the results."""
    if bool(args.images) == bool(args.embeddings):
        parser.error("what is the query? Either image files, or --embeddings FOLDER")
    if args.splits and not args.embeddings:
        parser.error("--splits is for --embeddings")
    if missing := [str(image) for image in args.images if not image.is_file()]:
        parser.error(f"there is no image {', '.join(missing)}")
    for file, suffix in ((args.json, ".json"), (args.page, ".html")):
        if file:
            options.check_output_file(file, parser, suffix)
    options.prepare_run(args, parser)
    index = SearchIndex(args.index)
    asked = ("where", "camera", "not_camera", "after", "before")
    where = conditions(index, **{name: getattr(args, name) for name in asked})
    if args.embeddings:
        files, features = read_queries(args, index.metadata)
    else:
        files, features = args.images, embed_queries(args, parser, index.metadata)
    how = {name: getattr(args, name) for name in ("k", "exact", "nprobes", "refine_factor")}
    found = index.query(features, where=where, **how)

    for query, rows in zip(files, found, strict=True):
        print(query)
        for row in rows:
            about = describe_row(row)
            print(f"{row['rank']:>4}  {row['similarity']:.3f}  {row['path']}  {about}".rstrip())
        if not rows:
            print("  no image fulfils the conditions")
    if args.json:
        queries = [{"query": str(f), "results": r} for f, r in zip(files, found, strict=True)]
        report = {"index": index.info(), "search": {"where": where, **how}, "queries": queries}
        write_text(args.json, json.dumps(report, indent=2, default=_plain) + "\n")
    if args.page:
        if len(files) > ON_PAGE:
            _logger.warning("The page shows the first %d queries.", ON_PAGE)
        write_text(args.page, search_page(files[:ON_PAGE], found[:ON_PAGE], args.root) + "\n")
    return found


def _plain(value: Any) -> str:
    """Turn values that JSON does not have into text."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def read_queries(args: argparse.Namespace, made: dict[str, Any]) -> tuple[list[Path], np.ndarray]:
    """Read files and features of stored embeddings."""
    other = read_metadata(args.embeddings)
    check_same_features(made, other)
    files: list[Path] = []
    features = []
    for shard in iter_embeddings(args.embeddings):
        rows = [i for i, s in enumerate(shard.splits) if not args.splits or s in args.splits]
        files += [Path(other.get("root", ""), shard.paths[i]) for i in rows]
        features.append(shard.features[rows])
    if not files:
        raise ValueError(f"{args.embeddings} holds no embeddings of {' '.join(args.splits)}")
    return files, np.concatenate(features)


def embed_queries(
    args: argparse.Namespace, parser: argparse.ArgumentParser, made: dict[str, Any]
) -> np.ndarray:
    """Embed image files by the model of the index, in the same way as its images."""
    if args.model is None:
        args.model, checkpoint = made["model"], made["checkpoint"]
        if not (args.checkpoint or args.no_pretrained):
            args.no_pretrained = checkpoint == "untrained"
            args.checkpoint = Path(checkpoint) if checkpoint not in (None, "untrained") else None
    source, _, name = args.model.partition(":")
    if source == "local-dir" and not Path(name).is_dir():
        parser.error(f"there is no folder {name} with the model: --model says where it is now")
    options.check_model(args, parser)
    reader = ReidReader("", [ReidImage(str(image), -1, -1) for image in args.images])
    if bad := find_bad_images(reader, args.workers, progress=False):
        lines = [f"\n    {args.images[number]}: {reason}" for number, reason in bad.items()]
        parser.error(f"these images cannot be read:{''.join(lines)}")
    args.img_size = made["img_size"]
    model = options.create_model(args)
    if hash_weights(model) != made["weights_sha256"]:
        parser.error(
            f"the weights of {args.model} are others than those that made the index "
            f"({made['model']}, {made['checkpoint'] or 'its own weights'}): name these"
        )
    protocol = replace(protocol_of(made), amp_dtype=args.amp_dtype)
    is_long = len(args.images) > args.batch_size
    compute = replace(options.compute_of(args), progress=is_long)
    return embed_split(model, reader, protocol, compute).features.numpy()
