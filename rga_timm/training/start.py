"""What a run starts from: a model's name, a folder, a repository of the Hub, or a file."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from timm.models import load_model_config_from_hf
from timm.models._hub import download_from_hf

from rga_timm.evaluation import same_training_people, train_test_overlap
from rga_timm.hub import model_source, read_reid, sha256_of
from rga_timm.training.config import ConfigError, TrainConfig
from rga_timm.training.data import Data

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """The weights that a run starts from."""

    name: str  # of the model, for reports and records, without a path of this machine
    num_classes: int = 0  # of the weights' classifier, if there is one
    model_args: Mapping[str, Any] = field(default_factory=dict)  # beside the options of the run
    # First the data of the classifier, then, marked `earlier`, those of previous checkpoints.
    trained_on: Sequence[Mapping[str, Any]] = ()
    record: Mapping[str, Any] | None = None  # what the run's model records of its source

    @property
    def classifier_people(self) -> list[Mapping[str, Any]]:
        """The part of `trained_on` that the classifier was trained on."""
        return _with_classifier(self.trained_on)

    def trained_on_with(self, now: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the training data of a model that starts here and is trained on `now`."""
        earlier = [
            {**dataset, "earlier": True}
            for dataset in self.trained_on
            if not any(same_training_people([dataset], [other]) for other in now)
        ]
        return [*now, *earlier]


def _with_classifier(trained_on: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in trained_on if not (one.get("earlier") or one.get("unlabelled"))]


def read_start(config: TrainConfig) -> Start:
    """Read what the run starts from.

    Raises:
        ValueError: A file holds no weights.
        OSError: A file cannot be read, or a repository cannot be reached.
    """
    model = config.model
    source, name = timm.models.parse_model_name(model)
    if source is None:
        if config.pretrained_path:
            file = Path(config.pretrained_path)
            width = model_source.classifier_width(model, file)
            return Start(model, width, record={"file": file.name, "sha256": sha256_of(file)})
        cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
        if not config.pretrained or cfg is None:
            return Start(model)
        reid = read_reid(model)  # of a tag of this project
        known = {"architecture": cfg.architecture, "name": reid["name"]} if reid else None
        return Start(model, cfg.num_classes or 0, {}, reid.get("trained_on") or (), known)

    if source == "local-dir":
        stored = model_source.read_model_folder(name)
        public_name = architecture = stored["architecture"]
        model_args, cfg = stored.get("model_args"), stored.get("pretrained_cfg") or stored
        num_classes = stored.get("num_classes", cfg.get("num_classes", 0))
    else:
        cfg, architecture, model_args = load_model_config_from_hf(name)
        public_name, num_classes = model, cfg.get("num_classes", 0)
    if not config.pretrained:
        return Start(public_name, model_args=model_args or {})
    reid = read_reid(model)
    trained_on = reid.get("trained_on") or ()
    record: dict[str, Any] = {"architecture": architecture}
    if source == "hf-hub":
        record["repository"] = name
    if reid.get("name"):
        record["name"] = reid["name"]
    elif not reid and cfg.get("tag"):  # the tag of a re-id model is its backbone's
        record["tag"] = cfg["tag"]
    if trained_on:
        record["trained_on"] = [d.get("name") for d in trained_on if not d.get("earlier")]
    record["sha256"] = _hash_weights_file(source, name)
    return Start(public_name, num_classes, model_args or {}, trained_on, record)


def _hash_weights_file(source: str, name: str) -> str | None:
    """SHA-256 of model.safetensors; None if the weights are in another file."""
    try:
        file = Path(name, "model.safetensors")
        if source == "hf-hub":
            file = Path(download_from_hf(name, file.name))
        return sha256_of(file)
    except OSError:
        return None


def create_model(config: TrainConfig, data: Data) -> tuple[Any, Start]:
    """Make the timm model with a classifier for the people of the data.

    Raises:
        ConfigError: The weights cannot be read or reached, or do not fit.
    """
    options = {"num_classes": data.num_classes, **config.model_kwargs}
    if config.drop_rate:
        options["drop_rate"] = config.drop_rate
    try:
        with model_source.model_errors(config.model, config.pretrained_path):
            start = read_start(config)
        model: Any = model_source.create_model(
            config.model, pretrained=config.pretrained, checkpoint=config.pretrained_path,
            img_size=config.img_size, **options,
        )  # fmt: skip
    except OSError as error:  # no network, no such repository
        raise ConfigError(
            f"cannot get the weights of {config.model}: {error}\nPass --pretrained-path FILE "
            "with weights of the backbone, or --no-pretrained to train from scratch."
        ) from error
    except ValueError as error:  # damaged weights, or weights or sizes that do not fit
        raise ConfigError(str(error)) from error
    if config.pretrained or config.pretrained_path:
        keep_or_reset_classifier(model, start, data)
    return model, start


def keep_or_reset_classifier(model: Any, start: Start, data: Data) -> None:
    """Keep the checkpoint's classifier if it is for the people trained on; log what was done."""
    people = start.classifier_people
    # Equal if it came with the weights, by the config or by the file.
    if model.pretrained_cfg.get("num_classes") == data.num_classes:
        if same_training_people(people, _with_classifier(data.trained_on)):
            text = "The checkpoint's classifier is kept: it is of the same %d people."
            _logger.info(text, data.num_classes)
            return
        model.reset_classifier(data.num_classes)
        names = ", ".join(str(dataset.get("name")) for dataset in people)
        why = "it does not say of which people" + (f" of {names}" if names else "")
        if people and all("fingerprint" in one or "train_pids" in one for one in people):
            why = f"they are other people, of {names}"
        _logger.info(
            "The checkpoint's classifier of %d identities is dropped: %s.", data.num_classes, why
        )
    elif start.num_classes and not hasattr(model, "forward_neck"):  # RGA models say it themselves
        text = "The checkpoint's classifier of %d classes is dropped: the model has %d."
        _logger.info(text, start.num_classes, data.num_classes)


def warn_of_overlap(start: Start, data: Data) -> None:
    """Warn of test people that the checkpoint was trained on."""
    for splits in (splits for partitions in data.test_sets for splits in partitions):
        for warning in train_test_overlap(splits, start.trained_on):
            _logger.warning("%s: the weights to start from: %s", splits.name, warning)


def exported_model_args(config: TrainConfig, start: Start) -> dict[str, Any]:
    """Return the arguments to rebuild the run's model with."""
    changed = {"num_classes", *(["img_size"] if config.img_size else [])}
    kept = {name: value for name, value in start.model_args.items() if name not in changed}
    return {**kept, **config.model_kwargs}
