"""Publish a checkpoint on the Hugging Face Hub.

    python scripts/publish.py output/RUN --name rga_resnet50.market1501 --data-dir DIR  # dry run
    python scripts/publish.py weights/rga_resnet50.market1501                           # dry run
    python scripts/publish.py weights/rga_resnet50.market1501 --push

A run's folder, or a model's (config.json and model.safetensors), is packed first: evaluated as it
will be stored, described by a model card, written to weights/NAME and entered into the manifest. A
folder that is packed is taken as it is. Then it is checked: complete, no pickles, licence and
metrics there, the golden embedding the same. What would be uploaded is shown; --push uploads it.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from data_options import FORM, dataset_help, pair_with_folders, read_partitions
from finetune_options import PRIVATE
from huggingface_hub.utils import validate_repo_id
from model_options import check_output_folder
from publish_cost import measure_cost
from publish_evaluate import evaluate_to_publish

from rga_timm.data import ReidSplits
from rga_timm.evaluation import check_testable, format_table
from rga_timm.hub import (
    MAX_BYTES,
    check_checkpoint,
    check_tag,
    code_version,
    copy_for_repository,
    list_in_manifest,
    pack_checkpoint,
    push_checkpoint,
)
from rga_timm.hub.licences import licence_of
from rga_timm.hub.push import EXTRA_SUFFIXES
from rga_timm.models._weights import HUB_ORGANISATION, MANIFEST_FILE

ROOT = Path(__file__).parents[1]

# Options that change what is packed, and nothing about a folder that is packed already.
PACKING = (
    "name", "weights", "version", "license", "command", "note", "extra", "keep_classifier",
    "precision", "dataset", "data_dir",
)  # fmt: skip


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="FOLDER", help="a run's, or a model's")

    pack = parser.add_argument_group("packing")
    pack.add_argument(
        "--name", help="MODEL.TAG (default: the model, and what it was trained on, as its tag)"
    )
    pack.add_argument(
        "--weights",
        type=Path,
        default=ROOT / "weights",
        metavar="DIR",
        help="the weights folder to pack into (default: the clone's)",
    )
    pack.add_argument("--version", type=int, help="of the checkpoint (default: the tag's, or 1)")
    pack.add_argument("--license", help="of the weights (default: what the data allow)")
    pack.add_argument("--command", help="how it was trained (default: finetune.py on its recipe)")
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
    pack.add_argument("--dataset", nargs="+", metavar=FORM, help=f"to test on: {dataset_help()}")
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
    try:
        if args.source.name == "model" and (args.source.parent / "args.yaml").is_file():
            args.source = args.source.parent  # the run, which has the recipe, too
        folder = args.source
        config = read_config(model_folder(folder))
        if folder != model_folder(folder) or args.recorded or not is_packed(config):
            check_output_folder(args.weights, parser)
            folder = pack(args, config)
        elif given := [o for o in PACKING if getattr(args, o) != parser.get_default(o)]:
            parser.error(
                f"{folder} is packed, and taken as it is: --{given[0].replace('_', '-')} is for "
                "packing. --recorded packs it anew, with its scores"
            )
        check_checkpoint(folder)
        check_tag(folder)
        name = read_config(folder)["reid"]["name"]
        if folder.name == name and (folder.parent / MANIFEST_FILE).is_file():
            list_in_manifest(folder.parent, name)  # packing may have been interrupted before
        with tempfile.TemporaryDirectory() as scratch:
            publish(args, folder_to_upload(args, folder, Path(scratch)))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        parser.error(str(error))
    return Path(folder)


def folder_to_upload(args: argparse.Namespace, folder: Path, scratch: Path) -> Path:
    """The packed folder; for another organisation than its card names, a copy that names that."""
    config = read_config(folder)
    reid = config["reid"]
    repository = f"{args.organisation}/{reid['name']}"
    if reid["repository"] == repository:
        return folder
    copy = copy_for_repository(folder, scratch / reid["name"], repository)
    check_checkpoint(copy)
    return copy


def publish(args: argparse.Namespace, folder: Path) -> None:
    """Show what is to be uploaded, and upload it if that is asked for."""
    reid = read_config(folder)["reid"]
    show(args, folder, reid)
    if not args.push:
        print("Nothing was uploaded. --push uploads.")
        return
    url = push_checkpoint(
        folder,
        f"{args.organisation}/{reid['name']}",
        revision_tag=f"v{reid['version']}",
        private=args.private,
        gated=args.gated,
        collection=args.collection,
    )
    print(f"Uploaded: {url}")


def model_folder(source: Path) -> Path:
    """A run's ``model``, or the folder itself."""
    return source / "model" if (source / "model" / "config.json").is_file() else source


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a model's folder.

    Raises:
        ValueError: There is none, or without records of training and test.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(
            f"{folder} holds neither a model (config.json) nor a finished run (model/config.json)"
        )
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if not config.get("reid"):
        raise ValueError(f"{file} has no section reid, which says on what the model was trained")
    return config


def is_packed(config: dict[str, Any]) -> bool:
    """Whether a folder was made by this program."""
    return "golden_embedding" in config["reid"]


def check_extra(files: Sequence[Path]) -> None:
    """Refuse further files that cannot be published, before anything is evaluated."""
    for file in files:
        if not file.is_file():
            raise ValueError(f"--extra {file}: there is no such file")
        if file.suffix not in EXTRA_SUFFIXES:
            raise ValueError(
                f"--extra {file}: not a kind of file that is published "
                f"({', '.join(EXTRA_SUFFIXES)})"
            )


def check_size(model: torch.nn.Module, precision: str) -> None:
    """Refuse weights that are too large to be published, before anything is evaluated."""
    numbers = sum(value.numel() for value in model.state_dict().values() if value.ndim > 1)
    # What has one dimension is next to nothing.
    size = numbers * (4 if precision == "float32" else 2)
    if size > MAX_BYTES:
        raise ValueError(
            f"the weights take {size / 2**20:.0f} MiB, and a checkpoint {MAX_BYTES / 2**20:.0f} at "
            "the most: they would not go into a clone. The Hub itself takes them, by timm's "
            "push_to_hf_hub"
        )


def pack(args: argparse.Namespace, config: dict[str, Any]) -> Path:
    """Evaluate a model as it will be stored, and write its folder and its entry in the manifest."""
    source, run = model_folder(args.source), args.source
    reid = config["reid"]
    trained_on = reid.get("trained_on", ())
    in_the_end = [one["name"] for one in trained_on if not one.get("earlier")]
    default_tag = "_".join(name.replace(":", "-") for name in in_the_end)
    name = args.name or reid.get("name") or f"{config['architecture']}.{default_tag}"
    if name.partition(".")[0] != config["architecture"] or not name.partition(".")[2]:
        raise ValueError(
            f"--name {name}: a {config['architecture']} is {config['architecture']}.TAG"
        )
    validate_repo_id(f"{args.organisation}/{name}")  # which its folder is named like, too
    check_extra(args.extra)
    licence = args.license or reid.get("license") or licence_of(one["name"] for one in trained_on)
    command = args.command or reid.get("command") or training_command(reid)

    # The model as it will be found again
    options = {} if args.keep_classifier else {"num_classes": 0}
    model = timm.create_model(f"local-dir:{source}", pretrained=True, **options)
    model_args = {k: v for k, v in config.get("model_args", {}).items() if k not in options}
    check_size(model, args.precision)
    half, note = reid.get("weights_dtype") == "float16", None
    if not args.recorded:
        reports, half, note = evaluate_to_publish(
            model,
            read_test_sets(args, run, reid),
            name=name,
            precision=args.precision,
            batch_size=args.batch_size,
            num_workers=args.workers,
            device=args.device,
            channels_last=args.channels_last,
            trained_on=trained_on,
        )
        print(format_table(reports), note, sep="\n\n")
        reid |= reports[0].to_dict()
        reid["also_tested_on"] = [report.to_dict() for report in reports[1:]]
    if not (args.recorded and reid.get("cost")):
        reid["cost"] = measure_cost(model, model_args, args.device)
    registered = registered_version(name)
    reid |= {
        "name": name,
        "repository": f"{args.organisation}/{name}",
        "version": args.version or registered or reid.get("version") or 1,
        "license": licence,
        "code_version": reid.get("code_version") or code_version(),
        "command": command,
    }
    if args.note:
        reid["note"] = args.note
    if note:
        reid["precision_note"] = note
    with tempfile.TemporaryDirectory() as scratch:
        extra_of_run = extra_files(run, reid, Path(scratch))
        extra = {file.name: file for file in (*extra_of_run, *args.extra)}
        folder = pack_checkpoint(
            model.cpu(),
            args.weights / name,
            reid=reid,
            half=half,
            extra_files=extra,
            model_args=model_args,
        )
    list_in_manifest(args.weights, name)
    if registered is None:
        print(
            f"timm does not know {name}: a checkpoint_cfg in the file of its family makes it a tag."
        )
    return folder


def read_test_sets(
    args: argparse.Namespace, run: Path, reid: dict[str, Any]
) -> list[list[ReidSplits]]:
    """What to test on: what is asked for, else what the run was tested on, where it found it."""
    specs, folders = args.dataset, args.data_dir
    if not specs and (run / "args.yaml").is_file():
        options = yaml.safe_load((run / "args.yaml").read_text(encoding="utf-8"))
        specs = options["eval_dataset"] or options["dataset"]
        folders = folders or options["eval_data_dir"] or options["data_dir"]
    if not specs and "dataset" not in reid:
        raise ValueError(
            f"{run} does not say on what it was tested: --dataset says on what to test"
        )
    specs = specs or [reid["dataset"]["name"]]
    test_sets = [read_partitions(spec, where) for spec, where in pair_with_folders(specs, folders)]
    for partitions in test_sets:
        check_testable(partitions)
    return test_sets


def extra_files(run: Path, reid: dict[str, Any], scratch: Path) -> list[Path]:
    """What a run, or a packed folder, has to tell of the training."""
    recipe = scratch / "recipe.yaml"
    options = reid.get("options")
    if (run / "args.yaml").is_file():
        options = yaml.safe_load((run / "args.yaml").read_text(encoding="utf-8"))
        options = {key: value for key, value in options.items() if key not in PRIVATE}
        options["model"] = reid["options"]["model"]  # without a path, if it was a folder
        found = [*run.glob("summary.csv"), *run.glob("*.png")]
    else:
        found = [path for path in run.iterdir() if path.suffix in EXTRA_SUFFIXES]
    if options and recipe.name not in (path.name for path in found):
        recipe.write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
        found.append(recipe)
    return found


def training_command(reid: dict[str, Any]) -> str:
    """The command that trains again, on the recipe that lies beside the weights; or converts.

    What only the one who trained has, is to be filled in: DIR with the images, STARTED_FROM.

    Raises:
        ValueError: The records do not say how the weights were made.
    """
    if options := reid.get("options"):
        data = [] if options["dataset"] == ["pedestrians"] else ["--data-dir", "DIR"]
        start = []
        if started_from := reid.get("started_from"):
            # What the recipe's model does not name by itself, because it lay on that machine.
            if file := started_from.get("file"):
                start = ["--pretrained-path", file]
            elif not started_from.keys() & {"repository", "name"}:
                start = ["--model", "STARTED_FROM"]
        run = ["python", "scripts/finetune.py", "--config", "recipe.yaml"]
        return shlex.join([*run, *start, *data])
    if converted := reid.get("converted_from"):
        file = converted["file"]
        return shlex.join(["python", "scripts/convert_official.py", file, "--output", "MODEL"])
    raise ValueError("there is no record of how the weights were made: --command says it")


def registered_version(name: str) -> int | None:
    """The version that the tag's config names; None if timm does not know the tag."""
    try:
        cfg = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # there is no such tag
        return None
    revision = (cfg.hf_hub_id or "").partition("@v")[2]
    return int(revision) if revision.isdigit() else None


def show(args: argparse.Namespace, folder: Path, reid: dict[str, Any]) -> None:
    """What is to be uploaded, and where to."""
    access = [kind for kind, on in (("private", args.private), ("gated", args.gated)) if on]
    print(
        f"\n{args.organisation}/{reid['name']}, v{reid['version']}, {', '.join(access) or 'public'}"
    )
    print(f"  licence {reid['license']}, collection {args.collection or 'none'}")
    for path in sorted(folder.iterdir()):
        print(f"  {path.stat().st_size:>12,}  {path.name}")


if __name__ == "__main__":
    main()
