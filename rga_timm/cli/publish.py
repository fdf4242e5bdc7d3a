"""Publish a checkpoint on the Hugging Face Hub.

    rga-timm publish output/RUN --name rga_resnet50.market1501 --data-dir DIR  # dry run
    rga-timm publish weights/rga_resnet50.market1501                           # dry run
    rga-timm publish weights/rga_resnet50.market1501 --push

A run's folder, or a model's (config.json and model.safetensors), is packed first: evaluated as it
will be stored, described by a model card, written to weights/NAME and entered into the manifest. A
packed folder is taken as it is. Then it is checked: complete, no pickles, licence and metrics
recorded, the same golden embedding. What would be uploaded is shown; --push uploads it.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_args

import torch

from rga_timm.cli.options import check_output_folder
from rga_timm.data.specs import FORM, dataset_help
from rga_timm.evaluation.compute import Compute
from rga_timm.evaluation.embedding.embed import Feature
from rga_timm.hub import (
    check_checkpoint,
    check_tag,
    copy_for_repository,
    list_in_manifest,
    push_checkpoint,
)
from rga_timm.hub.publish.pack import PackOptions, is_packed, model_folder, pack, read_records
from rga_timm.weights import HUB_ORGANISATION, MANIFEST_FILE, clone_weights

# Options that change what is packed, and nothing about a folder that is packed already.
PACKING = sorted(
    {field.name for field in fields(PackOptions)} - {"organisation", "recorded", "compute"}
)


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="rga-timm publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="FOLDER", help="a run's, or a model's")

    pack = parser.add_argument_group("packing")
    pack.add_argument(
        "--name", help="MODEL.TAG (default: the model, and what it was trained on, as its tag)"
    )
    pack.add_argument(
        "--weights",
        type=Path,
        default=clone_weights() or Path("weights"),
        metavar="DIR",
        help="the weights folder to pack into (default: weights of the clone, or of this folder)",
    )
    pack.add_argument("--version", type=int, help="of the checkpoint (default: the tag's, or 1)")
    pack.add_argument("--license", help="of the weights (default: what the data allow)")
    pack.add_argument(
        "--command", help="how it was trained (default: rga-timm finetune on its recipe)"
    )
    pack.add_argument("--note", help="a paragraph on the training, for the card")
    pack.add_argument(
        "--extra",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="further files: recipes of earlier stages, logs, curves",
    )
    pack.add_argument("--keep-classifier", action="store_true", help="of the training people")
    pack.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float16", "float32"),
        help="to store in; auto is float16 if no score changes by more than 0.05 points",
    )
    pack.add_argument(
        "--feature",
        choices=get_args(Feature),
        help="what the checkpoint gives as its embedding; pooled makes the BN neck pass on what it "
        "gets (default: what the run was tested by)",
    )
    pack.add_argument(
        "--dataset", nargs="+", default=[], metavar=FORM, help=f"to test on: {dataset_help()}"
    )
    pack.add_argument("--data-dir", nargs="+", default=[], metavar="DIR", help="where they lie")
    pack.add_argument(
        "--recorded",
        action="store_true",
        help="take the scores that the source records, without testing again; stores in the "
        "precision that it records",
    )
    pack.add_argument("--batch-size", type=int, default=128, help="(default: %(default)s)")
    pack.add_argument("--workers", type=int, default=4, help="loader processes (default: 4)")
    pack.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    pack.add_argument("--channels-last", action="store_true", help="test in that memory format")

    push = parser.add_argument_group("uploading")
    push.add_argument("--push", action="store_true", help="upload (default: show what would be)")
    push.add_argument("--organisation", default=HUB_ORGANISATION, help="(default: %(default)s)")
    push.add_argument("--private", action="store_true", help="a private repository")
    push.add_argument(
        "--gated", choices=("auto", "manual"), help="users must ask: answered at once, or by hand"
    )
    push.add_argument("--collection", metavar="TITLE", help="of the organisation, to enter it in")
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Pack, check, show, upload; the packed folder is returned for other programs."""
    parser = get_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for library in ("timm", "httpx", "httpx2"):  # every file that is read, every request
        logging.getLogger(library).setLevel(logging.WARNING)
    folder: Path = args.source
    if folder.name == "model" and (folder.parent / "args.yaml").is_file():
        folder = folder.parent  # the run, which has the recipe, too
    try:
        config = read_records(model_folder(folder))
        if folder != model_folder(folder) or args.recorded or not is_packed(config):
            check_output_folder(args.weights, parser)
            folder = pack(folder, pack_options(args))
        elif given := [o for o in PACKING if getattr(args, o) != parser.get_default(o)]:
            parser.error(
                f"{folder} is packed, and taken as it is: --{given[0].replace('_', '-')} is for "
                "packing. --recorded packs it again, with its scores"
            )
        check_checkpoint(folder)
        check_tag(folder)
        name = read_records(folder)["reid"]["name"]
        if folder.name == name and (folder.parent / MANIFEST_FILE).is_file():
            list_in_manifest(folder.parent, name)  # packing may have been interrupted before
        with tempfile.TemporaryDirectory() as scratch:
            publish(args, folder_to_upload(args, folder, Path(scratch)))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        parser.error(str(error))
    return folder


def pack_options(args: argparse.Namespace) -> PackOptions:
    """What the command line says of packing."""
    same = {f.name: getattr(args, f.name) for f in fields(PackOptions) if f.name != "compute"}
    compute = Compute(args.device, args.batch_size, args.workers, args.channels_last)
    return PackOptions(**same, compute=compute)


def folder_to_upload(args: argparse.Namespace, folder: Path, scratch: Path) -> Path:
    """The packed folder; for another organisation than its card names, a copy that names that."""
    reid = read_records(folder)["reid"]
    repository = f"{args.organisation}/{reid['name']}"
    if reid["repository"] == repository:
        return folder
    copy = copy_for_repository(folder, scratch / reid["name"], repository)
    check_checkpoint(copy)
    return copy


def publish(args: argparse.Namespace, folder: Path) -> None:
    """Show what is to be uploaded, and upload it if that is asked for."""
    reid = read_records(folder)["reid"]
    repository = f"{args.organisation}/{reid['name']}"
    access = [kind for kind, on in (("private", args.private), ("gated", args.gated)) if on]
    print(f"\n{repository}, v{reid['version']}, {', '.join(access) or 'public'}")
    print(f"  licence {reid['license']}, collection {args.collection or 'none'}")
    for path in sorted(folder.iterdir()):
        print(f"  {path.stat().st_size:>12,}  {path.name}")
    if not args.push:
        print("Nothing was uploaded. --push uploads.")
        return
    url = push_checkpoint(
        folder,
        repository,
        revision_tag=f"v{reid['version']}",
        private=args.private,
        gated=args.gated,
        collection=args.collection,
    )
    print(f"Uploaded: {url}")
