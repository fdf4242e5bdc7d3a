"""The options of a fine-tuning run, in one typed object.

Name, type, default and help of an option stand here alone: the command line of ``rga-timm
finetune`` is made from these fields, and recipe files are checked against them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import msgspec
import torch
import yaml
from timm.models import parse_model_name

from rga_timm.data import partition_specs
from rga_timm.data.specs import FORM, dataset_help, pair_with_folders
from rga_timm.evaluation.embedding.embed import Feature
from rga_timm.hub.model_source import MODEL_HELP, check_model, read_model_folder, resolve_model

_DATA_FIELDS = ("dataset", "data_dir", "eval_dataset", "eval_data_dir")


class ConfigError(ValueError):
    """What a run is asked for cannot be done; the message says why and what to do."""


def option(
    default: Any, text: str, group: str = "run", *, minimum: float | None = None, **argument: Any
) -> Any:
    """Declare a field; `argument` is what argparse's ``add_argument`` takes beside it."""
    metadata = {"help": text, "group": group, "minimum": minimum, "argument": argument}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train, on what, and how; `rga_timm.training.train` does it.

    The fields are the options of ``rga-timm finetune --help``, with underscores. Defaults are those
    of no recipe: the paper's recipe and others are YAML files of the command.

    Raises:
        ConfigError: Values that are out of range, unknown, or do not go together.
    """

    output: str | None = option(
        None, "the run's folder (output/DATE-MODEL-DATASET if not given)", metavar="DIR"
    )
    resume: bool = False  # Go on with the run in `output`; of the command line it is --resume RUN.
    seed: int = option(0, "of weights, batches and augmentation", minimum=0)

    dataset: Sequence[str] = option(("pedestrians",), dataset_help(), "data", metavar=FORM)
    data_dir: Sequence[str] = option(
        (),
        "where they lie: one folder for all, or one for each; not for pedestrians",
        "data",
        metavar="DIR",
    )
    skip_bad_images: bool = option(
        False, "decode every image first, and leave out those that cannot be", "data"
    )
    eval_dataset: Sequence[str] | None = option(
        None,
        "what to test on, the best model being that on the first; what is trained on if not given",
        "data",
        metavar=FORM,
    )
    eval_data_dir: Sequence[str] | None = option(
        None, "where they lie; where the training data lies if not given", "data", metavar="DIR"
    )
    img_size: tuple[int, int] | None = option(
        None, "pixels; the model's own if not given", "data", metavar=("H", "W")
    )
    num_identities: int = option(
        16, "P, identities a batch, over all processes; lowered where there are fewer", "data"
    )
    num_instances: int = option(4, "K, images of each", "data", minimum=1)
    epoch_images: Literal["identity", "all"] = option(
        "identity", "an epoch is K images of each identity, or every image", "data"
    )
    enlarge_prob: float = option(0.5, "enlarge by 1.125 and crop at random", "data")
    flip_prob: float = option(0.5, "mirror", "data")
    erase_prob: float = option(0.5, "erase a rectangle at random", "data")
    workers: int = option(4, "loader processes, for each training process", "data", minimum=0)
    cache: float | None = option(
        None,
        "hold the training images in so much shared memory, decoded and resized, and augment "
        "batches on the device",
        "data",
        metavar="GB",
    )
    cache_on_device: bool = option(False, "hold them in the memory of each device", "data")

    model: str = option(
        "rga_resnet50",
        f"{MODEL_HELP}; of a folder or repository its weights are what is started from",
        "model",
    )
    model_kwargs: Mapping[str, Any] = option(
        dict,
        "further arguments of the model, such as relation=none; added to those of the recipe",
        "model",
    )
    pretrained: bool = option(True, "start from the model's weights", "model")
    pretrained_tag: str | None = option(
        None, "start from the weights that timm knows by this tag", "model", metavar="TAG"
    )
    pretrained_path: str | None = option(
        None, "start from these weights instead", "model", metavar="FILE"
    )
    drop_rate: float = option(0.0, "dropout before the classifier", "model")

    smoothing: float = option(0.1, "label smoothing of the cross-entropy", "loss")
    margin: float = option(0.3, "of the triplet loss", "loss")
    triplet_weight: float = option(1.0, "0 leaves the triplet loss out", "loss")

    epochs: int = option(120, "passes over the data", "optimisation", minimum=1)
    opt: str = option("adam", "timm's name of the optimizer", "optimisation")
    lr: float = option(8e-4, "learning rate", "optimisation")
    weight_decay: float = option(5e-4, "of the weights", "optimisation")
    momentum: float = option(0.9, "of optimizers that have it", "optimisation")
    decay_norm_and_bias: bool = option(
        False, "weight decay of norms and biases too", "optimisation"
    )
    layer_decay: float | None = option(
        None, "factor of the learning rate from layer to layer, towards the input", "optimisation"
    )
    sched: str = option("cosine", "timm's name of the schedule", "optimisation")
    sched_on_updates: bool = option(
        False, "change the learning rate with every update, not every epoch", "optimisation"
    )
    warmup_epochs: int = option(0, "of rising learning rate", "optimisation")
    warmup_lr: float = option(1e-5, "learning rate that they begin with", "optimisation")
    min_lr: float = option(0.0, "learning rate that the schedule ends with", "optimisation")
    decay_milestones: Sequence[int] = option(
        (), "epochs, of the multistep schedule", "optimisation", nargs="*"
    )
    decay_rate: float = option(0.1, "at the milestones", "optimisation")
    clip_grad: float | None = option(None, "largest norm of the gradient", "optimisation")
    grad_accum_steps: int = option(1, "batches an update", "optimisation", minimum=1)
    ema_decay: float = option(0.0, "of the weights' moving average; 0 for none", "optimisation")
    freeze_backbone_epochs: int = option(0, "train only what is new for so long", "optimisation")
    freeze_bn: bool = option(False, "batch norms keep their statistics", "optimisation")
    sync_bn: bool = option(False, "batch norms over all GPUs", "optimisation")

    device: str = option("cuda" if torch.cuda.is_available() else "cpu", "cuda, cpu, ...")
    amp_dtype: Literal["bfloat16", "float16"] | None = option(
        None, "mixed precision; full if not given"
    )
    channels_last: bool = option(False, "memory format; often faster")
    compile: bool = option(False, "by torch.compile")
    eval_every: int = option(10, "test after so many epochs", minimum=1, metavar="EPOCHS")
    feature: Feature = option(  # noqa: RUF009 - a default like the others
        "embedding",
        "to test by: after (embedding) or before (pooled) the BN neck; models without a neck have "
        "but one feature",
    )
    eval_initial: bool = option(False, "evaluate before training, too")
    eval_batch_size: int = option(128, "images", minimum=1)
    page: bool = option(True, "at the end write report.html, which shows what the best model finds")

    def __post_init__(self) -> None:
        """Bring values into one form, and check them."""
        for name in _DATA_FIELDS:
            if (value := getattr(self, name)) is not None:
                value = [value] if isinstance(value, str | Path) else value
                object.__setattr__(self, name, [str(one) for one in value])
        if self.img_size is not None:
            object.__setattr__(self, "img_size", tuple(self.img_size))
        for one in fields(self):
            minimum = one.metadata.get("minimum")
            if minimum is not None and getattr(self, one.name) < minimum:
                raise ConfigError(f"--{one.name.replace('_', '-')} must be at least {minimum}")
        if message := self._conflict():
            raise ConfigError(message)

    def _conflict(self) -> str | None:
        """What is unknown or does not go together, for a message; None if all does."""
        try:
            pair_with_folders(self.dataset, self.data_dir)
            if self.eval_dataset:
                folders = self.eval_data_dir or []
                pair_with_folders(self.eval_dataset, folders, option="--eval-data-dir")
        except ValueError as error:
            return str(error)
        several = any(len(partition_specs(spec)) > 1 for spec in self.dataset)
        no_gpu = self.device.startswith("cuda") and not torch.cuda.is_available()
        conflicts = {
            "--dataset: one model is trained on one partition, such as split=0": several,
            "--eval-data-dir is for --eval-dataset": self.eval_data_dir and not self.eval_dataset,
            "--cache must be positive: so many GB": self.cache is not None and self.cache <= 0,
            "--cache-on-device needs --cache GB": self.cache_on_device and self.cache is None,
            "--sched plateau needs a score every epoch, which is not computed here": (
                self.sched.startswith("plateau")
            ),
            "the triplet loss needs --num-instances of at least 2, or --triplet-weight 0": (
                self.triplet_weight and self.num_instances < 2
            ),
            "--sync-bn needs GPUs: torch synchronises batch norms on them alone": (
                self.sync_bn and self.device == "cpu"
            ),
            "--freeze-bn leaves nothing for --sync-bn to synchronise": (
                self.freeze_bn and self.sync_bn
            ),
            f"--device {self.device}: torch finds no GPU; pass --device cpu": no_gpu,
        }
        return next((message for message, is_so in conflicts.items() if is_so), None)

    def resolved(self) -> TrainConfig:
        """Return the config with the model's name as timm takes it and with a folder for the run.

        Raises:
            ConfigError: There is no such model, or the folder holds a run already.
        """
        if self.output and not self.resume and Path(self.output, "summary.csv").exists():
            raise ConfigError(
                f"{self.output} holds a run already: go on with it by --resume {self.output}, or "
                "choose another --output"
            )
        try:
            model = self._resolved_model()
            source, _, name = model.rpartition(":")
            name = read_model_folder(name)["architecture"] if source == "local-dir" else name
        except (ValueError, OSError) as error:
            raise ConfigError(str(error)) from error
        data = re.sub(r"[^\w.+]+", "-", "+".join(self.dataset))
        name = f"{datetime.now():%Y%m%d-%H%M%S}-{name.replace('/', '-')}-{data}"
        output = str(self.output or f"output/{name}")
        return replace(self, model=model, pretrained_tag=None, output=output)

    def _resolved_model(self) -> str:
        if self.pretrained_path and not Path(self.pretrained_path).is_file():
            raise ConfigError(f"there is no file {self.pretrained_path}")
        model = resolve_model(self.model)
        source, name = parse_model_name(model)
        if self.pretrained_tag:
            others = {
                f"--model {model}, which brings its weights": source is not None,
                f"the tag in --model {model}": source is None and "." in name,
                "--no-pretrained": not self.pretrained,
                "--pretrained-path": bool(self.pretrained_path),
            }
            if given := [other for other, is_given in others.items() if is_given]:
                raise ConfigError(f"--pretrained-tag {self.pretrained_tag} excludes {given[0]}")
            model = f"{name}.{self.pretrained_tag}"
        if source is not None and self.pretrained_path:
            raise ConfigError(f"--model {model} brings its weights: no --pretrained-path")
        own_weights = self.pretrained and not self.pretrained_path
        return check_model(model, own_weights=own_weights, file_option="--pretrained-path")

    def to_dict(self) -> dict[str, Any]:
        """The options as plain data, for args.yaml; the tag stands in the model's name."""
        kept = asdict(self)
        del kept["resume"], kept["pretrained_tag"]
        return kept


def read_options(file: Path) -> dict[str, Any]:
    """Read options from a YAML file: a recipe, or the args.yaml of a run.

    Raises:
        ConfigError: The file is not YAML, or has an unknown option or a value of a wrong type.
    """
    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is not YAML that can be read: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{file} is not a mapping of options to values")
    types = get_type_hints(TrainConfig)
    known = {one.name for one in fields(TrainConfig) if one.metadata}
    if unknown := sorted(map(str, options.keys() - known)):
        raise ConfigError(f"{file} has unknown options: {', '.join(unknown)}")
    for name, value in options.items():
        if name in _DATA_FIELDS and isinstance(value, str):  # a file may name one without a list
            value = [value]
        try:
            # Not strict: YAML 1.1 takes 1e-3, which has no point, for a text.
            options[name] = msgspec.convert(value, types[name], strict=False)
        except msgspec.ValidationError as error:
            choices = _choices(types[name])
            hint = f"; it is one of {', '.join(choices)}" if choices else ""
            raise ConfigError(f"{file}: {name}: {error}{hint}") from error
    return options


def _choices(kind: Any) -> list[str]:
    """The values of a Literal, or of one among a union's types."""
    return [v for part in (kind, *get_args(kind)) for v in get_args(part) if isinstance(v, str)]
