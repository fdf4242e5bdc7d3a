"""Pack a run, or a model's folder, as a checkpoint's folder in weights/."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import yaml
from huggingface_hub.utils import validate_repo_id
from torch import nn

from rga_timm.data import ReidSplits
from rga_timm.data.specs import pair_with_folders, read_partitions
from rga_timm.evaluation import Compute, ModelRecord, check_testable, format_table
from rga_timm.evaluation.compute import keep_freed_memory
from rga_timm.evaluation.embedding.embed import Feature
from rga_timm.hub.code_version import code_version
from rga_timm.hub.manifest import list_in_manifest
from rga_timm.hub.model_source import create_model
from rga_timm.hub.pretrained import PRIVATE, read_config
from rga_timm.hub.publish.cost import measure_cost
from rga_timm.hub.publish.evaluate import evaluate_to_publish
from rga_timm.hub.publish.folder import MAX_BYTES, pack_checkpoint
from rga_timm.hub.publish.licences import licence_of
from rga_timm.hub.publish.push import EXTRA_SUFFIXES
from rga_timm.layers import pass_through
from rga_timm.weights import CONFIG_FILE, HUB_ORGANISATION, read_manifest


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """How a checkpoint is packed: the options of ``rga-timm publish``, and how to test."""

    weights: Path
    name: str | None = None
    organisation: str = HUB_ORGANISATION
    version: int | None = None
    license: str | None = None
    command: str | None = None
    note: str | None = None
    extra: Sequence[Path] = ()
    keep_classifier: bool = False
    precision: str = "auto"
    feature: Feature | None = None
    dataset: Sequence[str] = ()
    data_dir: Sequence[str | Path] = ()
    recorded: bool = False
    compute: Compute = field(default_factory=Compute)


def model_folder(source: Path) -> Path:
    """A run's ``model``, or the folder itself."""
    return source / "model" if (source / "model" / CONFIG_FILE).is_file() else source


def read_records(folder: Path) -> dict[str, Any]:
    """The config of a model's folder, or a ValueError if it has no records of training and test."""
    if not (folder / CONFIG_FILE).is_file():
        what = "neither a model (config.json) nor a finished run (model/config.json)"
        raise ValueError(f"{folder} holds {what}")
    config = read_config(folder)
    if not config.get("reid"):
        raise ValueError(f"{folder / CONFIG_FILE} has no section reid, the record of the training")
    return config


def is_packed(config: Mapping[str, Any]) -> bool:
    """Whether a folder is a packed checkpoint."""
    return "golden_embedding" in config["reid"]


def pack(run: Path, options: PackOptions) -> Path:
    """Evaluate a run's or folder's model as it will be stored, and write its checkpoint.

    Returns:
        The checkpoint's folder, which is entered into the manifest.

    Raises:
        ValueError: If it cannot be published so; if possible, before anything is evaluated.
    """
    source = model_folder(run)
    config = read_records(source)
    reid = config["reid"]
    identity = _identity(config, options)
    name, pooled = identity["name"], _is_pooled(reid, options)
    for file in options.extra:
        if not file.is_file():
            raise ValueError(f"--extra {file}: there is no such file")
        if file.suffix not in EXTRA_SUFFIXES:
            kinds = ", ".join(EXTRA_SUFFIXES)
            raise ValueError(f"--extra {file}: not a kind of file that is published ({kinds})")
    device = str(options.compute.device)
    keep_freed_memory(device)

    changes: dict[str, Any] = {} if options.keep_classifier else {"num_classes": 0}
    model: Any = create_model(f"local-dir:{source}", **changes)
    model_args = {k: v for k, v in config.get("model_args", {}).items() if k not in changes}
    _check_size(model, options.precision)
    if pooled and hasattr(model, "forward_neck"):  # without a neck there is one feature only
        pass_through(model.neck)
        reid["feature_note"] = (
            "The embedding is the pooled feature: the BN neck of these weights does not change it."
        )
        if "options" in reid:
            reid["options"]["feature"] = "pooled"
    half = reid.get("weights_dtype") == "float16"
    if not options.recorded:
        test_sets = _read_test_sets(run, reid, options)
        record = ModelRecord(name, trained_on=reid.get("trained_on", ()))
        reports, half, reid["precision_note"] = evaluate_to_publish(
            model, test_sets, record, precision=options.precision, compute=options.compute
        )
        print(format_table(reports), reid["precision_note"], sep="\n\n")
        reid |= reports[0].to_dict()
        reid["also_tested_on"] = [report.to_dict() for report in reports[1:]]
    if not (options.recorded and reid.get("cost")):
        reid["cost"] = measure_cost(model, model_args, device)
    reid |= identity
    with tempfile.TemporaryDirectory() as scratch:
        files = (*_files_of_run(run, reid, Path(scratch)), *options.extra)
        extra = {file.name: file for file in files}
        folder = options.weights / name
        pack_checkpoint(
            model.cpu(), folder, reid=reid, half=half, extra_files=extra, model_args=model_args
        )
    list_in_manifest(options.weights, name)
    if not timm.models.is_model_pretrained(name):
        print(f"timm does not know {name}: checkpoints=[TAG] in its family's file makes it a tag.")
    return folder


def _identity(config: Mapping[str, Any], options: PackOptions) -> dict[str, Any]:
    """The records of name, version, licence, code and training command."""
    reid, architecture = config["reid"], config["architecture"]
    trained_on = reid.get("trained_on", ())
    last = [one["name"].replace(":", "-") for one in trained_on if not one.get("earlier")]
    name = options.name or reid.get("name") or f"{architecture}.{'_'.join(last)}"
    if name.partition(".")[0] != architecture or not name.partition(".")[2]:
        raise ValueError(f"--name {name}: a {architecture} is {architecture}.TAG")
    repository = f"{options.organisation}/{name}"
    validate_repo_id(repository)  # before the folder gets that name
    listed = read_manifest().get(name, {}).get("version")
    licence = options.license or reid.get("license")
    return {
        "name": name,
        "repository": repository,
        "version": options.version or listed or reid.get("version") or 1,
        "license": licence or licence_of(one["name"] for one in trained_on),
        "code_version": reid.get("code_version") or code_version(),
        "command": options.command or reid.get("command") or _training_command(reid),
        **({"note": options.note} if options.note else {}),
    }


def _is_pooled(reid: Mapping[str, Any], options: PackOptions) -> bool:
    """Whether the pooled feature becomes the embedding."""
    if options.recorded and options.feature:
        raise ValueError("--feature does not go with --recorded, which keeps the scores")
    pooled = (options.feature or reid.get("protocol", {}).get("feature")) == "pooled"
    if pooled and (options.recorded or options.keep_classifier):
        option = "recorded" if options.recorded else "keep-classifier"
        raise ValueError(
            f"--{option} does not go with the pooled feature, for which the neck is changed: the "
            "recorded scores and the classifier need the original neck"
        )
    return pooled


def _check_size(model: nn.Module, precision: str) -> None:
    """Refuse weights that are too large to be published, apart from their small vectors."""
    numbers = sum(value.numel() for value in model.state_dict().values() if value.ndim > 1)
    size = numbers * (4 if precision == "float32" else 2)
    if size > MAX_BYTES:
        raise ValueError(
            f"the weights take {size / 2**20:.0f} MiB; a checkpoint has at most "
            f"{MAX_BYTES / 2**20:.0f}, to fit into a clone. timm's push_to_hf_hub uploads larger"
        )


def _args_of(run: Path) -> dict[str, Any]:
    file = run / "args.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _read_test_sets(
    run: Path, reid: Mapping[str, Any], options: PackOptions
) -> list[list[ReidSplits]]:
    """Read the data sets of the options, else those that the run was tested on."""
    specs, folders = options.dataset, options.data_dir
    if not specs and (args := _args_of(run)):
        specs = args["eval_dataset"] or args["dataset"]
        folders = folders or args["eval_data_dir"] or args["data_dir"]
    if not specs and "dataset" not in reid:
        raise ValueError(f"{run} does not record its test data: name the data set by --dataset")
    specs = specs or [reid["dataset"]["name"]]
    test_sets = [read_partitions(spec, where) for spec, where in pair_with_folders(specs, folders)]
    for partitions in test_sets:
        check_testable(partitions)
    return test_sets


def _files_of_run(run: Path, reid: Mapping[str, Any], scratch: Path) -> list[Path]:
    """The files of a run, or a packed folder, that describe the training."""
    recipe = scratch / "recipe.yaml"
    options = reid.get("options")
    if args := _args_of(run):
        options = {key: value for key, value in args.items() if key not in PRIVATE}
        options["model"] = reid["options"]["model"]  # without the path of a folder
        options["feature"] = reid["options"].get("feature", "embedding")
        found = [*run.glob("summary.csv"), *run.glob("*.png")]
    else:
        found = [path for path in run.iterdir() if path.suffix in EXTRA_SUFFIXES]
    if options and recipe.name not in (path.name for path in found):
        recipe.write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
        found.append(recipe)
    return found


def _training_command(reid: Mapping[str, Any]) -> str:
    """The command that trains with the recipe beside the weights, or converts the file.

    DIR stands for the folder of images, STARTED_FROM for a local model that it started from.
    """
    if options := reid.get("options"):
        data = [] if options["dataset"] == ["pedestrians"] else ["--data-dir", "DIR"]
        start = []
        if started_from := reid.get("started_from"):
            # Weights on the trainer's machine, which the recipe's model does not name.
            if file := started_from.get("file"):
                start = ["--pretrained-path", file]
            elif not started_from.keys() & {"repository", "name"}:
                start = ["--model", "STARTED_FROM"]
        return shlex.join(["rga-timm", "finetune", "--config", "recipe.yaml", *start, *data])
    if converted := reid.get("converted_from"):
        return shlex.join(["rga-timm", "convert-official", converted["file"], "--output", "MODEL"])
    raise ValueError("there is no record of how the weights were made: give it by --command")
