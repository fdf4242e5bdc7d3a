"""Embed images, and store the embeddings.

    rga-timm embed local-dir:output/RUN/model --images FOLDER --output EMBEDDINGS
    rga-timm embed MODEL --dataset market1501 --data-dir DIR --output EMBEDDINGS
    torchrun --nproc-per-node 4 -m rga_timm embed MODEL --images FOLDER --output EMBEDDINGS
    rga-timm embed ... --output EMBEDDINGS --resume        # go on after an interruption

Any timm model works. Images are resized and normalised as the model's configuration says.
EMBEDDINGS gets metadata, embeddings.json, which say what made them, and shards, part-00000.parquet
and so on, with path, split, pid, camid, tracklet and embedding of each single image.
rga_timm.evaluation.read_embeddings reads them; evaluate --embeddings scores those of a data set.
Several processes share the shards; the content of a shard does not depend on the process.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from rga_timm.cli import options
from rga_timm.cli.embed_data import ImageList, add_image_options, read_image_list
from rga_timm.data import ReidDataset
from rga_timm.evaluation import Protocol, hash_weights, read_metadata
from rga_timm.evaluation.dataset import embed_loader
from rga_timm.evaluation.distributed import init_distributed
from rga_timm.evaluation.embedding.shards import FORMATS
from rga_timm.evaluation.embedding.store import (
    METADATA,
    differences,
    holds_embeddings,
    missing_shards,
    shard_count,
    shard_images,
    write_metadata,
    write_shard,
)
from rga_timm.evaluation.reports.report import software_versions

_logger = logging.getLogger("embed")


def get_parser() -> argparse.ArgumentParser:
    """Define the options."""
    parser = options.create_parser("embed", __doc__)
    options.add_model_options(parser)
    data = parser.add_argument_group("data")
    add_image_options(data)
    options.add_loading_options(data)
    options.add_preprocessing_options(data)
    options.add_feature_options(parser.add_argument_group("features"))
    add, count = parser.add_argument_group("output").add_argument, options.positive_int
    add("--output", type=Path, required=True, metavar="EMBEDDINGS", help="a folder")
    add("--format", default="parquet", choices=FORMATS, help="(default: parquet)")
    add("--shard-size", type=count, default=4096, metavar="N", help="images (default: 4096)")
    add("--resume", action="store_true", help="keep the existing shards, and make the others")
    options.add_run_options(parser.add_argument_group("run"))
    return parser


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exit with a message for errors that would otherwise appear after minutes of work."""
    options.check_model(args, parser)
    options.prepare_run(args, parser)
    if args.images and (args.data_dir or args.splits):
        parser.error("--data-dir and --splits go with --dataset, not with --images")
    options.check_output_folder(args.output, parser)
    held = holds_embeddings(args.output)
    if held and not args.resume:
        text = f"{args.output} already holds embeddings ({held})"
        parser.error(f"{text}: --resume to go on with them, or another folder")
    if held and not (args.output / METADATA).is_file():
        parser.error(f"{args.output} holds {held} but no {METADATA}: take another folder")
    if args.format == "parquet" and find_spec("pyarrow") is None:
        parser.error("pyarrow not installed: pip install 'rga-timm[data]', or --format safetensors")


def main(argv: Sequence[str] | None = None) -> Path:
    """Embed as the command line says, and return the folder."""
    parser = get_parser()
    args = parser.parse_args(argv)
    # Treat the end of a job by a scheduler (SLURM, Kubernetes) as a Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return embed_images(args, parser)
    except KeyboardInterrupt:
        say_what_is_there(args.output, "Interrupted")
        sys.exit(130)


def embed_images(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Path:
    """Embed as the options say, and return the folder."""
    args.device, args.rank, args.world_size = init_distributed(args.device)
    is_main = args.rank == 0
    logging.basicConfig(level=logging.INFO if is_main else logging.ERROR, format="%(message)s")
    check(args, parser)
    if args.world_size > 1 and torch.device(args.device).type == "cuda":
        torch.cuda.set_device(args.device)  # or pinned memory is the first GPU's for all

    # Every process finds out by itself what to do; nothing is written yet.
    try:
        images = read_image_list(args)
        model = options.create_model(args)
        config = options.preprocessing(args, model)
        width = options.feature_width(args, model, config)
        protocol = options.protocol_of(args, config)
        metadata = describe(args, model, protocol, images, width)
        missing = plan(args.output, metadata)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    own = missing[args.rank :: args.world_size]
    rows = [row for shard in own for row in shard_images(metadata, shard)]
    if bad := gather(images.find_bad(rows, args.workers, progress=is_main)):
        text = f"{len(bad)} images cannot be read; --skip-bad-images leaves them out:"
        parser.error("\n    ".join([text, *bad[:20], *["..."] * (len(bad) > 20)]))

    try:
        if is_main and not holds_embeddings(args.output):
            write_metadata(args.output, metadata)
        gather([])  # wait for all processes
        metadata = read_metadata(args.output)
        write_shards(args, model, protocol, metadata, images, own)
        gather([])
    except Exception:
        say_what_is_there(args.output, "Ended by an error")
        raise
    sizes = metadata["count"], metadata["width"], shard_count(metadata)
    _logger.info("%s: %d embeddings of width %d in %d shards", args.output, *sizes)
    if dist.is_initialized():
        dist.destroy_process_group()
    return args.output


def say_what_is_there(folder: Path, how: str) -> None:
    """Log, after an early end, how many shards there are."""
    if dist.is_initialized() and dist.get_rank():
        return
    try:
        metadata = read_metadata(folder)
    except (ValueError, OSError):
        _logger.warning("%s: no embeddings were written.", how)
        return
    left, of = len(missing_shards(folder, metadata)), shard_count(metadata)
    text = "%s: %s holds %d of %d shards. The same command with --resume makes the others."
    _logger.warning(text, how, folder, of - left, of)


def gather(lines: list[str]) -> list[str]:
    """Return the lines of all processes."""
    if not dist.is_initialized():
        return lines
    of_all: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_all, lines)
    return [*chain(*of_all)]


def describe(
    args: argparse.Namespace, model: nn.Module, protocol: Protocol, images: ImageList, width: int
) -> dict[str, Any]:
    """Return the metadata of the folder."""
    how = ("img_size", "interpolation", "mean", "std", "feature", "flip", "scales", "amp_dtype")
    return {
        "model": args.model,
        "checkpoint": options.checkpoint_name(args),
        "weights_sha256": hash_weights(model),
        **{name: getattr(protocol, name) for name in how},
        "width": width,
        "shard_format": args.format,
        "shard_size": args.shard_size,
        **images.about,
        "software": software_versions(),
        # These affect only the last bits of the features.
        "run": {name: getattr(args, name) for name in ("batch_size", "device", "channels_last")},
    }


def plan(folder: Path, metadata: dict[str, Any]) -> list[int]:
    """List the shards to make; a ValueError if the folder holds other embeddings."""
    if not holds_embeddings(folder):
        return [*range(shard_count(metadata))]
    stored = read_metadata(folder)
    if found := differences(stored, metadata):
        raise ValueError(
            f"{folder} cannot be resumed, it holds embeddings of something else: {'; '.join(found)}"
        )
    missing = missing_shards(folder, stored)
    for name in ("software", "run") if missing else ():
        # No error, as only the last bits of the features may differ.
        there = stored.get(name) or {}
        other = {key: now for key, now in metadata[name].items() if there.get(key) != now}
        if other:
            texts = (f"{key} ({there.get(key)} there, {now} now)" for key, now in other.items())
            _logger.warning("Goes on with another %s", ", ".join(texts))
    for reason in missing.values():
        if not reason.endswith("is missing"):
            _logger.warning("Made again: %s", reason)
    return [*missing]


def write_shards(
    args: argparse.Namespace,
    model: nn.Module,
    protocol: Protocol,
    metadata: dict[str, Any],
    images: ImageList,
    shards: list[int],
) -> None:
    """Embed the images of some shards, and write each as soon as it is complete."""
    # A batch is of one shard, so that shards do not depend on each other.
    rows = {shard: shard_images(metadata, shard) for shard in shards}
    batches = {
        shard: [part[i : i + args.batch_size] for i in range(0, len(part), args.batch_size)]
        for shard, part in rows.items()
    }
    loader: DataLoader[Any] = DataLoader(
        ReidDataset(images.reader, protocol.transform()),
        batch_sampler=[[*batch] for batch in chain(*batches.values())],
        num_workers=args.workers if shards else 0,
        pin_memory=torch.device(args.device).type == "cuda",
        generator=torch.Generator(),
    )
    compute = replace(options.compute_of(args), distributed=False, progress=False)
    total = sum(map(len, rows.values()))
    with tqdm(total=total, desc="embed", unit=" images", disable=args.rank > 0) as bar:
        read = counted(loader, bar)  # goes on reading while a shard is written
        for shard, parts in batches.items():
            found = embed_loader(model, islice(read, len(parts)), protocol, compute)
            embeddings = images.with_features(rows[shard], found.features.numpy())
            write_shard(args.output, metadata, shard, embeddings)


def counted(loader: Iterable[Any], bar: tqdm) -> Iterator[Any]:
    """Yield the batches, and move the bar."""
    for images, targets in loader:
        bar.update(len(images))
        yield images, targets
