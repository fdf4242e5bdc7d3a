"""Publish a checkpoint on the Hugging Face Hub.

    rga-timm publish output/RUN --name rga_resnet50.market1501 --data-dir DIR  # dry run
    rga-timm publish weights/rga_resnet50.market1501                           # dry run
    rga-timm publish weights/rga_resnet50.market1501 --push

A run's folder, or a model's (config.json and model.safetensors), is packed first: evaluated as it
will be stored, described by a model card, written to weights/NAME and entered into the manifest. A
packed folder is used as it is. Then it is checked: complete, no pickles, licence and metrics
recorded, the same golden embedding. Last, the files to upload are listed; --push uploads them.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_args

from rga_timm.cli.options import (
    add_config_options,
    check_output_folder,
    create_parser,
    positive_int,
    prepare_run,
)
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

# Options of packing, which do not apply to a packed folder.
PACKING = sorted({f.name for f in fields(PackOptions)} - {"organisation", "recorded", "compute"})


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = create_parser("publish", __doc__)
    parser.add_argument("source", type=Path, metavar="FOLDER", help="a run's, or a model's")

    pack = parser.add_argument_group("packing")
    pack.add_argument("--name", help="MODEL.TAG (default: the training data as the model's tag)")
    weights = clone_weights() or Path("weights")
    where = "the weights folder to pack into (default: weights of the clone, or of this folder)"
    pack.add_argument("--weights", type=Path, default=weights, metavar="DIR", help=where)
    pack.add_argument(
        "--version", type=positive_int, help="of the checkpoint (default: the tag's, or 1)"
    )
    pack.add_argument("--license", help="of the weights (default: what the data allow)")
    how = "how it was trained (default: rga-timm finetune on its recipe)"
    pack.add_argument("--command", help=how)
    pack.add_argument("--note", help="a paragraph on the training, for the card")
    further = "further files: recipes of earlier stages, logs, curves"
    pack.add_argument("--extra", type=Path, nargs="+", default=[], metavar="FILE", help=further)
    pack.add_argument("--keep-classifier", action="store_true", help="of the training identities")
    precisions = ("auto", "float16", "float32")
    stored = "of the stored weights; auto is float16 if no score changes by more than 0.05 points"
    pack.add_argument("--precision", default="auto", choices=precisions, help=stored)
    feature = "the embedding; pooled makes the BN neck return its input (default: as tested)"
    pack.add_argument("--feature", choices=get_args(Feature), help=feature)
    test_on = f"to test on: {dataset_help()}"
    pack.add_argument("--dataset", nargs="+", default=[], metavar=FORM, help=test_on)
    pack.add_argument("--data-dir", nargs="+", default=[], metavar="DIR", help="their folders")
    recorded = "use the recorded scores and precision, without testing again"
    pack.add_argument("--recorded", action="store_true", help=recorded)
    pack.add_argument("--batch-size", type=positive_int, default=128, help="(default: 128)")
    add_config_options(pack, "workers", help="loader processes (default: 4)")
    add_config_options(pack, "device")
    pack.add_argument("--channels-last", action="store_true", help="test in this memory format")

    push = parser.add_argument_group("uploading")
    push.add_argument("--push", action="store_true", help="upload (default: show the files)")
    push.add_argument("--organisation", default=HUB_ORGANISATION, help="(default: %(default)s)")
    push.add_argument("--private", action="store_true", help="make the repository private")
    gated = "users must ask for access, granted at once or by hand"
    push.add_argument("--gated", choices=("auto", "manual"), help=gated)
    push.add_argument("--collection", metavar="TITLE", help="of the organisation, to add it to")
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Pack, check, show, upload; return the packed folder."""
    parser = get_parser()
    args = parser.parse_args(argv)
    prepare_run(args, parser)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for library in ("timm", "httpx", "httpx2"):  # they log every file and request
        logging.getLogger(library).setLevel(logging.WARNING)
    folder: Path = args.source
    if folder.name == "model" and (folder.parent / "args.yaml").is_file():
        folder = folder.parent  # the run has the recipe, too
    try:
        config = read_records(model_folder(folder))
        if folder != model_folder(folder) or args.recorded or not is_packed(config):
            check_output_folder(args.weights, parser)
            folder = pack(folder, pack_options(args))
        elif given := [o for o in PACKING if getattr(args, o) != parser.get_default(o)]:
            parser.error(
                f"{folder} is packed already: --{given[0].replace('_', '-')} is for packing. "
                "--recorded packs it again with its scores"
            )
        check_checkpoint(folder)
        check_tag(folder)
        name = read_records(folder)["reid"]["name"]
        if folder.name == name and (folder.parent / MANIFEST_FILE).is_file():
            list_in_manifest(folder.parent, name)  # packing may have been interrupted before
        with tempfile.TemporaryDirectory() as scratch:
            publish(args, folder, Path(scratch))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        parser.error(str(error))
    return folder


def pack_options(args: argparse.Namespace) -> PackOptions:
    """The options of packing."""
    same = {f.name: getattr(args, f.name) for f in fields(PackOptions) if f.name != "compute"}
    compute = Compute(args.device, args.batch_size, args.workers, args.channels_last)
    return PackOptions(**same, compute=compute)


def publish(args: argparse.Namespace, folder: Path, scratch: Path) -> None:
    """Show a packed folder's files, and upload them with ``--push``."""
    reid = read_records(folder)["reid"]
    repository = f"{args.organisation}/{reid['name']}"
    if reid["repository"] != repository:  # another organisation: config and card must name it
        folder = copy_for_repository(folder, scratch / reid["name"], repository)
        check_checkpoint(folder)
    access = [kind for kind, on in (("private", args.private), ("gated", args.gated)) if on]
    print(f"\n{repository}, v{reid['version']}, {', '.join(access) or 'public'}")
    print(f"  licence {reid['license']}, collection {args.collection or 'none'}")
    for path in sorted(folder.iterdir()):
        print(f"  {path.stat().st_size:>12,}  {path.name}")
    if not args.push:
        print("Nothing was uploaded. --push uploads.")
        return
    options = {name: getattr(args, name) for name in ("private", "gated", "collection")}
    url = push_checkpoint(folder, repository, revision_tag=f"v{reid['version']}", **options)
    print(f"Uploaded: {url}")
