"""From a run, or a model's folder, to a checkpoint's folder in weights/."""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from huggingface_hub.utils import validate_repo_id

from rga_timm.data import ReidSplits
from rga_timm.data.specs import pair_with_folders, read_partitions
from rga_timm.evaluation import Compute, ModelRecord, check_testable, format_table
from rga_timm.evaluation.cpu_memory import keep_freed_memory
from rga_timm.hub import MAX_BYTES, code_version, list_in_manifest, pack_checkpoint
from rga_timm.hub.pretrained import PRIVATE
from rga_timm.hub.publish.cost import measure_cost
from rga_timm.hub.publish.evaluate import evaluate_to_publish
from rga_timm.hub.publish.licences import licence_of
from rga_timm.hub.publish.push import EXTRA_SUFFIXES
from rga_timm.layers import pass_through


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

    if args.recorded and args.feature:
        raise ValueError("--feature does not go with --recorded: that changes no score")
    pooled = (args.feature or reid.get("protocol", {}).get("feature")) == "pooled"
    if pooled and (args.recorded or args.keep_classifier):
        option = "recorded" if args.recorded else "keep-classifier"
        raise ValueError(
            f"--{option} does not go with the pooled feature: for that the neck is changed, which "
            "the recorded scores and the classifier know nothing of"
        )

    keep_freed_memory(args.device)

    # The model as it will be found again
    options = {} if args.keep_classifier else {"num_classes": 0}
    model = timm.create_model(f"local-dir:{source}", pretrained=True, **options)
    model_args = {k: v for k, v in config.get("model_args", {}).items() if k not in options}
    check_size(model, args.precision)
    if pooled and hasattr(model, "forward_neck"):  # without a neck there is one feature only
        pass_through(model.neck)
        reid["feature_note"] = (
            "The embedding is the pooled feature: the BN neck of these weights passes on what it "
            "gets."
        )
        if "options" in reid:
            reid["options"]["feature"] = "pooled"
    half, note = reid.get("weights_dtype") == "float16", None
    if not args.recorded:
        reports, half, note = evaluate_to_publish(
            model,
            read_test_sets(args, run, reid),
            ModelRecord(name, trained_on=trained_on),
            precision=args.precision,
            compute=Compute(
                args.device, args.batch_size, args.workers, channels_last=args.channels_last
            ),
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
        options["feature"] = reid["options"].get("feature", "embedding")
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
        run = ["python", "rga-timm finetune", "--config", "recipe.yaml"]
        return shlex.join([*run, *start, *data])
    if converted := reid.get("converted_from"):
        file = converted["file"]
        return shlex.join(["python", "rga-timm convert-official", file, "--output", "MODEL"])
    raise ValueError("there is no record of how the weights were made: --command says it")


def registered_version(name: str) -> int | None:
    """The version that the tag's config names; None if timm does not know the tag."""
    try:
        cfg = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # there is no such tag
        return None
    revision = (cfg.hf_hub_id or "").partition("@v")[2]
    return int(revision) if revision.isdigit() else None
