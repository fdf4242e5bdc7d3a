"""The options of a fine-tuning run, in one typed object.

Only these fields define an option's name, type, default and help: the command line of ``rga-timm
finetune`` is made from them, and recipe files are checked against them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import msgspec
import numpy as np
import torch
import yaml
from timm.models import parse_model_name
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

from rga_timm.data import partition_specs
from rga_timm.data.specs import FORM, dataset_help, pair_with_folders
from rga_timm.data.writable import check_writable_folder
from rga_timm.evaluation.compute import check_device
from rga_timm.evaluation.embedding.embed import Feature
from rga_timm.hub.model_file import ChannelOrder, is_model_file
from rga_timm.hub.model_source import (
    FILE_HELP,
    MODEL_HELP,
    check_model,
    read_model_folder,
    resolve_model,
)
from rga_timm.training.ranges import Range, option

_DATA_FIELDS = (
    "dataset", "data_dir", "eval_dataset", "eval_data_dir", "unlabelled", "unlabelled_data_dir",
    "teacher_embeddings",
)  # fmt: skip


class ConfigError(ValueError):
    """A run that cannot be done as asked; the message says why and what to do."""


_data, _model, _loss, _distillation, _optimisation = (
    partial(option, group=group)
    for group in ("data", "model", "loss", "distillation", "optimisation")
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train, on what, and how; `rga_timm.training.train` does it.

    The fields are the options of ``rga-timm finetune --help``, with underscores. The defaults
    belong to no recipe: the recipes are YAML files of the command.

    Raises:
        ConfigError: Values are out of range, unknown, or cannot be combined.
    """

    output: str | None = option(
        None, "the run's folder (output/DATE-MODEL-DATASET if not given)", metavar="DIR"
    )
    resume: bool = False  # Go on with the run in `output`; on the command line --resume RUN.
    seed: int = option(0, "of weights, batches and augmentation", minimum=0, maximum=4 * 10**9)

    dataset: Sequence[str] = _data(("pedestrians",), dataset_help(), metavar=FORM)
    data_dir: Sequence[str] = _data(
        (),
        "its folder: one for all data sets, or one for each; none for pedestrians",
        metavar="DIR",
    )
    skip_bad_images: bool = _data(False, "decode every image first; leave out unreadable ones")
    eval_dataset: Sequence[str] | None = _data(
        None,
        "test sets, of which the first chooses the best model (default: the training data sets)",
        metavar=FORM,
    )
    eval_data_dir: Sequence[str] | None = _data(
        None, "their folders (default: those of the training data)", metavar="DIR"
    )
    img_size: tuple[int, int] | None = _data(
        None, "pixels; the model's own if not given", minimum=1, metavar=("H", "W")
    )
    num_identities: int = _data(
        16, "P, identities a batch over all processes; or all if fewer", minimum=1
    )
    num_instances: int = _data(4, "K, images of each", minimum=1)
    epoch_images: Literal["identity", "all"] = _data(
        "identity", "an epoch is K images of each identity, or every image"
    )
    enlarge_prob: float = _data(0.5, "enlarge by 1.125 and crop at random", minimum=0, maximum=1)
    flip_prob: float = _data(0.5, "mirror", minimum=0, maximum=1)
    erase_prob: float = _data(0.5, "erase a rectangle at random", minimum=0, maximum=1)
    workers: int = _data(4, "loader processes, for each training process", minimum=0)
    cache: float | None = _data(
        None,
        "keep the training images, decoded and resized, in this much shared memory, and augment "
        "batches on the device",
        above=0,
        metavar="GB",
    )
    cache_on_device: bool = _data(False, "keep them in the memory of each device")

    model: str = _model("rga_resnet50", f"{MODEL_HELP}; the last two bring their weights")
    model_kwargs: Mapping[str, Any] = _model(
        dict, "further arguments of the model, such as relation=none; added to those of the recipe"
    )
    pretrained: bool = _model(True, "start from the model's weights")
    pretrained_tag: str | None = _model(
        None, "start from the weights that timm knows by this tag", metavar="TAG"
    )
    pretrained_path: str | None = _model(None, "start from these weights instead", metavar="FILE")
    drop_rate: float = _model(0.0, "dropout before the classifier", minimum=0, below=1)

    smoothing: float = _loss(0.1, "label smoothing of the cross-entropy", minimum=0, below=1)
    margin: float = _loss(0.3, "of the triplet loss", minimum=0)
    triplet_weight: float = _loss(1.0, "0 leaves the triplet loss out", minimum=0)

    teacher: str | None = _distillation(
        None, f"a network to learn features from: {MODEL_HELP}; {FILE_HELP}", metavar="MODEL"
    )
    teacher_embeddings: Sequence[str] = _distillation(
        (),
        "features to learn instead, which rga-timm embed has stored for the training images: "
        "folders, those of several teachers count equally",
        metavar="FOLDER",
    )
    teacher_img_size: tuple[int, int] | None = _distillation(
        None, "pixels, if not the teacher's own", minimum=1, metavar=("H", "W")
    )
    teacher_mean: tuple[float, float, float] | None = _distillation(
        None, "of pixels in 0 ... 1, if not the teacher's own", metavar=("R", "G", "B")
    )
    teacher_std: tuple[float, float, float] | None = _distillation(
        None, "as the mean", above=0, metavar=("R", "G", "B")
    )
    teacher_channel_order: ChannelOrder | None = _distillation(  # noqa: RUF009
        None, "in which a teacher's file takes channels, if it does not say"
    )
    similarity_weight: float = _distillation(
        20.0, "of the difference between the images' similarities and the teacher's", minimum=0
    )
    projection_weight: float = _distillation(
        5.0, "of the difference between the projected feature and the teacher's", minimum=0
    )
    unlabelled: Sequence[str] = _distillation(
        (), "data sets whose images, without their ids, are learned from too", metavar=FORM
    )
    unlabelled_data_dir: Sequence[str] = _distillation(
        (), "their folders: one for all, or one for each", metavar="DIR"
    )
    unlabelled_images: int = _distillation(
        32, "of them in a batch over all processes", minimum=1, metavar="N"
    )

    epochs: int = _optimisation(120, "passes over the data", minimum=1)
    opt: str = _optimisation("adam", "timm's name of the optimizer")
    lr: float = _optimisation(8e-4, "learning rate", minimum=0)
    weight_decay: float = _optimisation(5e-4, "of the weights", minimum=0)
    momentum: float = _optimisation(0.9, "of optimizers that have it", minimum=0, below=1)
    decay_norm_and_bias: bool = _optimisation(False, "weight decay of norms and biases too")
    layer_decay: float | None = _optimisation(
        None,
        "factor of the learning rate from layer to layer, towards the input",
        above=0,
        maximum=1,
    )
    sched: str = _optimisation("cosine", "timm's name of the schedule")
    sched_on_updates: bool = _optimisation(False, "step the schedule by updates, not epochs")
    warmup_epochs: int = _optimisation(0, "of rising learning rate", minimum=0)
    warmup_lr: float = _optimisation(1e-5, "learning rate that they begin with", minimum=0)
    min_lr: float = _optimisation(0.0, "learning rate that the schedule ends with", minimum=0)
    decay_milestones: Sequence[int] = _optimisation(
        (), "epochs, of sched multistep", minimum=1, nargs="*"
    )
    decay_rate: float = _optimisation(0.1, "at the milestones", above=0)
    clip_grad: float | None = _optimisation(None, "largest norm of the gradient", above=0)
    grad_accum_steps: int = _optimisation(1, "batches an update", minimum=1)
    ema_decay: float = _optimisation(
        0.0, "of the weights' moving average; 0 for none", minimum=0, below=1
    )
    freeze_backbone_epochs: int = _optimisation(
        0, "epochs that train only the new layers", minimum=0
    )
    freeze_bn: bool = _optimisation(False, "batch norms keep their statistics")
    sync_bn: bool = _optimisation(False, "batch norms over all GPUs")

    device: str = option("cuda" if torch.cuda.is_available() else "cpu", "cuda, cpu, ...")
    amp_dtype: Literal["auto", "bfloat16", "float16"] | None = option(
        None, "of mixed precision, if any; auto: bfloat16 if that is faster here"
    )
    channels_last: bool = option(False, "memory format; often faster")
    compile: bool = option(False, "by torch.compile")
    eval_every: int = option(10, "test after so many epochs", minimum=1, metavar="EPOCHS")
    feature: Feature = option(  # noqa: RUF009 - a default like the others
        "embedding",
        "feature to test: after (embedding) or before (pooled) the BN neck, if there is one",
    )
    eval_initial: bool = option(False, "evaluate before training, too")
    eval_batch_size: int = option(128, "images", minimum=1)
    page: bool = option(True, "at the end write report.html about the best model")

    def __post_init__(self) -> None:
        """Normalise and check the values."""
        for name in _DATA_FIELDS:
            if (value := getattr(self, name)) is not None:
                value = [value] if isinstance(value, str | Path) else value
                object.__setattr__(self, name, [str(one) for one in value])
        for one in fields(self):
            self._check_value(one.name, one.metadata.get("range", Range()))
        if self.img_size is not None:
            object.__setattr__(self, "img_size", tuple(self.img_size))
        if message := self._conflict() or self._optimizer_error():
            raise ConfigError(message)

    def _check_value(self, name: str, limits: Range) -> None:
        value = getattr(self, name)
        if isinstance(value, Path | np.generic):  # in Python, as good as a text or number
            value = str(value) if isinstance(value, Path) else value.item()
            object.__setattr__(self, name, value)
        flag = f"--{name.replace('_', '-')}"
        try:
            msgspec.convert(value, _types()[name])
        except msgspec.ValidationError as error:
            raise ConfigError(f"{flag} {value!r}: {error}{_hint(name)}") from error
        if misfit := limits.misfit(value):
            raise ConfigError(f"{flag} {misfit}")

    def _optimizer_error(self) -> str | None:
        """Try optimizer and schedule on a small network; return what timm finds wrong."""
        flag = f"--opt {self.opt}"
        try:
            optimizer = create_optimizer_v2(
                torch.nn.ParameterList([torch.zeros(1, 1)]), opt=self.opt, lr=self.lr,
                weight_decay=self.weight_decay, momentum=self.momentum,
            )  # fmt: skip
            flag = f"--sched {self.sched}"
            schedule, _ = create_scheduler_v2(
                optimizer, self.sched, num_epochs=self.epochs, warmup_epochs=self.warmup_epochs
            )
        except Exception as error:  # optimizers, and packages that they need, raise many kinds
            return f"{flag} cannot be used: {' '.join(str(error).split()) or repr(error)}"
        # Older versions of timm do not raise.
        return None if schedule or self.sched == "none" else f"{flag}: timm knows no such schedule"

    def _conflict(self) -> str | None:
        """Return a message on what is unknown or cannot be combined; None if all is well."""
        try:
            pair_with_folders(self.dataset, self.data_dir)
            if self.eval_dataset:
                folders = self.eval_data_dir or []
                pair_with_folders(self.eval_dataset, folders, option="--eval-data-dir")
            folders = self.unlabelled_data_dir
            pair_with_folders(self.unlabelled, folders, option="--unlabelled-data-dir")
            check_device(self.device)
        except ValueError as error:
            return str(error)
        several = any(len(partition_specs(spec)) > 1 for spec in self.dataset)
        distils = bool(self.teacher or self.teacher_embeddings)
        conflicts = {
            "--teacher excludes --teacher-embeddings": self.teacher and self.teacher_embeddings,
            "--unlabelled needs a --teacher or --teacher-embeddings": (
                self.unlabelled and not distils
            ),
            "--unlabelled-data-dir is for --unlabelled": (
                self.unlabelled_data_dir and not self.unlabelled
            ),
            "a teacher needs --similarity-weight or --projection-weight above 0": (
                distils and not (self.similarity_weight or self.projection_weight)
            ),
            "--dataset: one model is trained on one partition, such as split=0": several,
            "--eval-data-dir is for --eval-dataset": self.eval_data_dir and not self.eval_dataset,
            "--cache-on-device needs --cache GB": self.cache_on_device and self.cache is None,
            "--sched plateau needs a score every epoch, which is not computed here": (
                self.sched.startswith("plateau")
            ),
            "the triplet loss needs --num-identities and --num-instances of at least 2, or "
            "--triplet-weight 0": (
                self.triplet_weight and min(self.num_identities, self.num_instances) < 2
            ),
            "--decay-milestones must rise": sorted(self.decay_milestones)
            != [*self.decay_milestones],
            "--sync-bn needs GPUs: torch synchronises batch norms on them alone": (
                self.sync_bn and self.device == "cpu"
            ),
            "--freeze-bn leaves nothing for --sync-bn to synchronise": (
                self.freeze_bn and self.sync_bn
            ),
        }
        return next((message for message, is_so in conflicts.items() if is_so), None)

    def resolved(self) -> "TrainConfig":
        """Return the config with timm's name of the model and a folder for the run.

        Raises:
            ConfigError: The model is unknown, or the folder holds a run already.
        """
        try:
            check_writable_folder(Path(self.output or "."))
        except ValueError as error:
            raise ConfigError(f"--output: {error}") from error
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
        if is_model_file(model):
            raise ConfigError(f"{model} cannot be trained: it is a --teacher at most")
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
        """Return the options as plain data, for args.yaml; the tag is in the model's name."""
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
    known = {one.name for one in fields(TrainConfig) if one.metadata}
    if unknown := sorted(map(str, options.keys() - known)):
        raise ConfigError(f"{file} has unknown options: {', '.join(unknown)}")
    for name, value in options.items():
        if name in _DATA_FIELDS and isinstance(value, str):  # a file may name one without a list
            value = [value]
        try:
            # Not strict: YAML 1.1 takes 1e-3, which has no point, for a text.
            options[name] = msgspec.convert(value, _types()[name], strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{file}: {name}: {error}{_hint(name)}") from error
    return options


@cache
def _types() -> dict[str, Any]:
    return get_type_hints(TrainConfig)


def _hint(name: str) -> str:
    choices = _choices(_types()[name])
    return f"; it is one of {', '.join(choices)}" if choices else ""


def _choices(kind: Any) -> list[str]:
    """The choices of a Literal or of a union with one."""
    return [v for part in (kind, *get_args(kind)) for v in get_args(part) if isinstance(v, str)]
