"""Search for people among stored embeddings.

    rga-timm embed MODEL --images photos --output embeddings       # what is searched
    rga-timm search build gallery embeddings --columns photos.csv  # path,camera,time,...
    rga-timm search query gallery someone.jpg --camera 3 5 --after 2024-05-01T12:00
    rga-timm search query gallery a.jpg b.jpg --json found.json --contact-sheet found.png
    rga-timm search append gallery more-embeddings --columns more.csv
    rga-timm search index gallery           # approximate: faster among many images
    rga-timm search info gallery

The index is a folder, or a place in object storage (s3://, gs://, az://), and LanceDB keeps it.
Queries are image files, which the model of the index embeds just as its images were embedded, or
stored embeddings. Appended images are found at once; `optimize` then and when puts them into the
approximate index.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from rga_timm.cli.options import (
    add_model_options,
    add_run_options,
    check_model,
    create_model,
    positive_int,
    prepare_run,
)
from rga_timm.data import ReidImage, ReidReader, create_eval_loader, eval_transform, find_bad_images
from rga_timm.evaluation import embed, hash_weights, iter_embeddings, read_stamp
from rga_timm.search import (
    NPROBES,
    REFINE_FACTOR,
    Kind,
    SearchIndex,
    check_same_features,
    format_results,
    result_sheet,
    save_results,
)

_logger = logging.getLogger("search")

MOST_QUERIES = 50  # on a contact sheet


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="rga-timm search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = add_command(commands, "build", "make an index of stored embeddings")
    add_embeddings_options(build)
    build.add_argument("--overwrite", action="store_true", help="replace the index that is there")

    append = add_command(commands, "append", "put further embeddings of the same model into it")
    add_embeddings_options(append)
    append.add_argument(
        "--replace",
        action="store_true",
        help="in the place of images that are there already (default: end with an error)",
    )

    index = add_command(commands, "index", "make the search approximate, or exact again")
    index.add_argument(
        "--kind", default="ivf_rq", choices=get_args(Kind), help="(default: %(default)s)"
    )
    index.add_argument("--partitions", type=positive_int, metavar="N", help="(default: by rows)")
    index.add_argument(
        "--sub-vectors", type=positive_int, metavar="N", help="of ivf_pq (default: width / 8)"
    )
    add_command(commands, "optimize", "put appended images into the approximate index")
    add_command(commands, "info", "what is in it")
    add_query_options(add_command(commands, "query", "find the most similar images"))
    return parser


def add_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A subcommand, with the options that say which index."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("index", metavar="INDEX", help="a folder, or s3://, gs://, az://...")
    parser.add_argument(
        "--table", default="embeddings", help="its name there (default: embeddings)"
    )
    parser.add_argument(
        "--storage-option",
        type=key_and_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the object storage, as LanceDB takes them",
    )
    return parser


def add_embeddings_options(parser: argparse.ArgumentParser) -> None:
    """Which embeddings go into the index."""
    parser.add_argument("embeddings", type=Path, help="a folder that rga-timm embed has written")
    parser.add_argument("--splits", nargs="+", default=[], help="only these (default: all)")
    parser.add_argument(
        "--columns",
        type=Path,
        metavar="FILE",
        help="a CSV or Parquet file with the column path and further ones, such as time and camera",
    )


def add_query_options(parser: argparse.ArgumentParser) -> None:
    """What is searched for, among what, and what becomes of it."""
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="queries")
    stored = parser.add_argument_group("stored embeddings as queries")
    stored.add_argument("--embeddings", type=Path, metavar="FOLDER", help="instead of images")
    stored.add_argument("--splits", nargs="+", default=[], help="only these (default: all)")
    stored.add_argument("--rows", nargs="+", type=int, metavar="N", help="only these, from 0")

    add_model_options(parser, "--model")
    parser.add_argument("--batch-size", type=positive_int, default=32, help="(default: 32)")
    parser.add_argument("--workers", type=int, default=0, help="loader processes (default: 0)")
    add_run_options(parser)

    among = parser.add_argument_group("conditions")
    among.add_argument("--camera", nargs="+", default=[], metavar="C", help="only of these")
    among.add_argument("--not-camera", nargs="+", default=[], metavar="C", help="none of these")
    among.add_argument("--after", metavar="TIME", help="at this time or later, ISO 8601")
    among.add_argument("--before", metavar="TIME", help="before this time")
    among.add_argument("--where", metavar="SQL", help='in LanceDB\'s terms, such as "pid = 3"')

    search = parser.add_argument_group("search")
    search.add_argument("-k", type=positive_int, default=10, help="results (default: 10)")
    search.add_argument("--exact", action="store_true", help="past the approximate index")
    search.add_argument(
        "--nprobes",
        type=positive_int,
        default=NPROBES,
        metavar="N",
        help="partitions of the approximate index that are searched (default: %(default)s)",
    )
    search.add_argument(
        "--refine-factor",
        type=positive_int,
        default=REFINE_FACTOR,
        metavar="N",
        help="times k candidates are compared by their embeddings (default: %(default)s)",
    )

    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    output.add_argument("--contact-sheet", type=Path, metavar="FILE.png", help="show them here")
    output.add_argument("--root", type=Path, metavar="DIR", help="where the images lie now")


def key_and_value(text: str) -> tuple[str, str]:
    """An argparse type."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text} is not KEY=VALUE")
    return key, value


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message for what would otherwise fail after work."""
    if bool(args.images) == bool(args.embeddings):
        parser.error("what is the query? Either image files, or --embeddings FOLDER")
    if args.images and (args.splits or args.rows):
        parser.error("--splits and --rows go with --embeddings, not with images")
    if missing := [str(image) for image in args.images if not image.is_file()]:
        parser.error(f"there is no image {', '.join(missing)}")
    for file in (args.json, args.contact_sheet):
        if file and not file.parent.is_dir():
            parser.error(f"there is no folder {file.parent} to write {file.name} to")
    if args.contact_sheet and args.contact_sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        parser.error(f"--contact-sheet must end in .png or .jpg, not {args.contact_sheet.name}")
    prepare_run(args, parser)


def main(argv: Sequence[str] | None = None) -> Any:
    """Do as the command line says; what was found, or is there, is returned for other programs."""
    parser = get_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return COMMANDS[args.command](args, parser)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        _logger.warning("Interrupted: the index is as it was.")
        sys.exit(130)


def run_build(args: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Make an index."""
    index = SearchIndex.build(
        args.index,
        args.embeddings,
        columns=args.columns,
        splits=args.splits,
        overwrite=args.overwrite,
        table=args.table,
        storage_options=dict(args.storage_option),
    )
    _logger.info("%s: %d images, searched exactly", args.index, len(index))
    return index.info()


def run_append(args: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Put more into it."""
    index = open_index(args)
    more = index.append(
        args.embeddings, columns=args.columns, splits=args.splits, replace=args.replace
    )
    _logger.info("%s: %d images more, %d in all", args.index, more, len(index))
    return index.info()


def run_index(args: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Make the search approximate, or exact again."""
    index = open_index(args)
    index.create_index(args.kind, num_partitions=args.partitions, num_sub_vectors=args.sub_vectors)
    _logger.info("%s: %d images, searched by %s", args.index, len(index), args.kind)
    return index.info()


def run_optimize(args: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Put appended images into the approximate index."""
    index = open_index(args)
    index.optimize()
    return show_info(index)


def run_info(args: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Say what is in it."""
    return show_info(open_index(args))


def run_query(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Any]:
    """Search, and show what was found."""
    check(args, parser)
    index = open_index(args)
    where = index.where(
        cameras=args.camera,
        not_cameras=args.not_camera,
        after=args.after,
        before=args.before,
        where=args.where,
    )
    if args.embeddings:
        files, features = read_queries(args, index.stamp)
    else:
        files, features = args.images, embed_queries(args, parser, index.stamp)
    options = {
        "k": args.k,
        "where": where,
        "exact": args.exact,
        "nprobes": args.nprobes,
        "refine_factor": args.refine_factor,
    }
    found = index.query(features, **options, progress=len(files) > 1)

    names = [str(file) for file in files]
    print(format_results(names, found))
    if args.json:
        save_results(args.json, names, found, {"index": index.info(), "search": options})
    if args.contact_sheet:
        if len(files) > MOST_QUERIES:
            _logger.warning("The contact sheet shows the first %d queries.", MOST_QUERIES)
        sheet = result_sheet(files[:MOST_QUERIES], found[:MOST_QUERIES], args.root)
        sheet.save(args.contact_sheet)
    return found


def open_index(args: argparse.Namespace) -> SearchIndex:
    """The index that is meant."""
    return SearchIndex(args.index, table=args.table, storage_options=dict(args.storage_option))


def show_info(index: SearchIndex) -> dict[str, Any]:
    """Print what is in the index."""
    info, stamp = index.info(), index.stamp
    kind = info["kind"]
    if kind != "exact":
        kind += f", which knows {info['indexed_rows']:,} of them"
    size = "x".join(map(str, stamp["img_size"]))
    lines = {
        "images": f"{info['rows']:,}",
        "search": kind,
        "model": stamp["model"],
        "weights": f"{stamp['checkpoint'] or 'its own'}, SHA-256 {stamp['weights_sha256']}",
        "input": f"{size}, {stamp['interpolation']}",
        "feature": f"{stamp['feature']}, {stamp['width']} wide"
        + (", flip" if stamp["flip"] else "")
        + (f", scales {stamp['scales']}" if len(stamp["scales"]) > 1 else ""),
        "columns": ", ".join(f"{name} ({kind})" for name, kind in info["columns"].items()),
    }
    print("\n".join(f"{name:>8}  {text}" for name, text in lines.items()))
    return info


def read_queries(args: argparse.Namespace, stamp: dict[str, Any]) -> tuple[list[Path], np.ndarray]:
    """Files and features of stored embeddings."""
    other = read_stamp(args.embeddings)
    check_same_features(stamp, other)
    files, features, start = [], [], 0
    for shard in iter_embeddings(args.embeddings):
        for row, (path, split) in enumerate(zip(shard.paths, shard.splits, strict=True)):
            is_named = args.rows is None or start + row in args.rows
            if is_named and (not args.splits or split in args.splits):
                files.append(Path(other["root"], path))
                features.append(shard.features[row])
        start += len(shard)
    if not files:
        raise ValueError(f"{args.embeddings} has no such rows: it has {start}, from 0")
    return files, np.stack(features)


def embed_queries(
    args: argparse.Namespace, parser: argparse.ArgumentParser, stamp: dict[str, Any]
) -> np.ndarray:
    """Features of image files, by the model of the index, made as those in it were."""
    if args.model is None:
        args.model = stamp["model"]
        if not (args.checkpoint or args.no_pretrained):
            args.no_pretrained = stamp["checkpoint"] == "untrained"
            is_file = stamp["checkpoint"] and not args.no_pretrained
            args.checkpoint = Path(stamp["checkpoint"]) if is_file else None
    args.img_size = stamp["img_size"]
    source, _, name = args.model.partition(":")
    if source == "local-dir" and not Path(name).is_dir():
        parser.error(f"there is no folder {name} with the model: --model says where it is now")
    check_model(args, parser)
    reader = ReidReader("", [ReidImage(str(image), -1, -1) for image in args.images])
    bad = find_bad_images(reader, args.workers, progress=False)
    if bad:
        lines = [f"{args.images[number]}: {reason}" for number, reason in bad.items()]
        parser.error("these images cannot be read:\n    " + "\n    ".join(lines))

    model = create_model(args)
    if hash_weights(model) != stamp["weights_sha256"]:
        parser.error(
            f"the weights of {args.model} are others than those that made the index "
            f"({stamp['model']}, {stamp['checkpoint'] or 'its own weights'}): name these"
        )
    transform = eval_transform(
        stamp["img_size"], stamp["mean"], stamp["std"], stamp["interpolation"]
    )
    loader = create_eval_loader(reader, transform, args.batch_size, num_workers=args.workers)
    embeddings = embed(
        model,
        loader,
        device=args.device,
        feature=stamp["feature"],
        flip=stamp["flip"],
        scales=stamp["scales"],
        amp_dtype=getattr(torch, args.amp_dtype) if args.amp_dtype else None,
        channels_last=args.channels_last,
        progress=len(args.images) > args.batch_size,
    )
    return embeddings.features.numpy()


COMMANDS = {
    "build": run_build,
    "append": run_append,
    "index": run_index,
    "optimize": run_optimize,
    "query": run_query,
    "info": run_info,
}
