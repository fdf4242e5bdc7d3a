"""What a run starts from: a model's name, a folder, a repository of the Hub, or a file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from timm.models import load_model_config_from_hf
from timm.models._hub import download_from_hf

from rga_timm.data import ReidSplits
from rga_timm.evaluation import same_training_people, train_test_overlap
from rga_timm.hub import read_reid, sha256_of, takes_img_size
from rga_timm.hub.model_source import classifier_width, model_errors, read_model_folder

_logger = logging.getLogger("finetune")


@dataclass(frozen=True)
class Start:
    """What is known of the weights that a run starts from.

    Attributes:
        name: Of the model, for reports and records: without a path of this machine.
        num_classes: Of the classifier that comes with the weights; 0 if there is none.
        model_args: What the model is made with, beside the options of the run.
        trained_on: On whom they were trained, where that is recorded: the people of the classifier,
            and after them, marked as `earlier`, those of checkpoints before.
        record: What the run's model records of the folder, repository or file.
    """

    name: str
    num_classes: int = 0
    model_args: Mapping[str, Any] = field(default_factory=dict)
    trained_on: Sequence[Mapping[str, Any]] = ()
    record: Mapping[str, Any] | None = None

    @property
    def classifier_people(self) -> list[Mapping[str, Any]]:
        """Those of `trained_on` that the classifier is of."""
        return [dataset for dataset in self.trained_on if not dataset.get("earlier")]

    def trained_on_with(self, now: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Everybody that a model has seen which started here and was trained on these."""
        earlier = [
            {**dataset, "earlier": True}
            for dataset in self.trained_on
            if not any(same_training_people([dataset], [other]) for other in now)
        ]
        return [*now, *earlier]


def read_start(args: argparse.Namespace) -> Start:
    """Look at what the run starts from.

    Raises:
        ValueError: A file that holds no weights.
        OSError: A file cannot be read, or a repository cannot be reached.
    """
    source, name = timm.models.parse_model_name(args.model)
    if source is None:
        if args.pretrained_path:
            file = Path(args.pretrained_path)
            started_from = {"file": file.name, "sha256": sha256_of(file)}
            return Start(args.model, classifier_width(args.model, file), record=started_from)
        cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
        if not args.pretrained:
            return Start(args.model)
        reid = read_reid(args.model)  # of a tag of this project
        known = {"architecture": cfg.architecture, "name": reid["name"]} if cfg and reid else None
        num_classes = (cfg.num_classes or 0) if cfg else 0
        return Start(args.model, num_classes, {}, reid.get("trained_on") or (), known)

    if source == "local-dir":
        config = read_model_folder(name)
        architecture, model_args = config["architecture"], config.get("model_args") or {}
        cfg = config.get("pretrained_cfg") or config
        public_name = architecture
        num_classes = config.get("num_classes", cfg.get("num_classes", 0))
    else:
        cfg, architecture, model_args = load_model_config_from_hf(name)
        public_name, num_classes = args.model, cfg.get("num_classes", 0)
    if not args.pretrained:
        return Start(public_name, model_args=model_args or {})
    reid = read_reid(args.model)
    trained_on = reid.get("trained_on") or ()
    record: dict[str, Any] = {"architecture": architecture}
    if source == "hf-hub":
        record["repository"] = name
    if reid.get("name"):
        record["name"] = reid["name"]
    elif not reid and cfg.get("tag"):  # a re-id model still carries that of its backbone's weights
        record["tag"] = cfg["tag"]
    if trained_on:
        record["trained_on"] = [d.get("name") for d in trained_on if not d.get("earlier")]
    record["sha256"] = _hash_weights_file(source, name)
    return Start(public_name, num_classes, model_args or {}, trained_on, record)


def _hash_weights_file(source: str, name: str) -> str | None:
    """SHA-256 of model.safetensors; None where the weights lie in a file of another name."""
    try:
        file = Path(name, "model.safetensors")
        if source == "hf-hub":
            file = Path(download_from_hf(name, file.name))
        return sha256_of(file)
    except OSError:
        return None


def create_model(
    args: argparse.Namespace, num_classes: int, trained_on: Sequence[Mapping[str, Any]]
) -> tuple[Any, Start]:
    """The timm model, with a classifier of the training identities, at the image size asked for.

    Args:
        args: The options.
        num_classes: How many people are trained on.
        trained_on: Who they are, as `describe_training` writes it.

    Returns:
        The model, and what it started from.
    """
    options: dict[str, Any] = {"num_classes": num_classes, **args.model_kwargs}
    if args.pretrained_path:
        options["pretrained_cfg_overlay"] = {"file": args.pretrained_path}
    if args.drop_rate:
        options["drop_rate"] = args.drop_rate
    pretrained = args.pretrained or bool(args.pretrained_path)
    try:
        with model_errors(args.model, args.pretrained_path):
            start = read_start(args)
            if args.img_size and takes_img_size(args.model):
                options["img_size"] = tuple(args.img_size)
            model = timm.create_model(args.model, pretrained=pretrained, **options)
    except OSError as error:  # no network, no such repository
        raise SystemExit(
            f"the weights of {args.model} could not be had: {error}\nPass --pretrained-path FILE "
            "with weights of the backbone, or --no-pretrained to train from scratch."
        ) from error
    except ValueError as error:  # damaged weights, or weights or sizes that do not fit
        raise SystemExit(str(error)) from error
    if pretrained:
        settle_classifier(model, num_classes, start, trained_on)
    return model, start


def settle_classifier(
    model: Any, num_classes: int, start: Start, trained_on: Sequence[Mapping[str, Any]]
) -> None:
    """Keep the checkpoint's classifier if it is of the people trained on; say what became of it."""
    # Equal if it came with the weights, whether the config told of it or the file.
    if model.pretrained_cfg.get("num_classes") == num_classes:
        if same_training_people(start.classifier_people, trained_on):
            _logger.info(
                "The checkpoint's classifier is kept: it is of the same %d people.", num_classes
            )
            return
        model.reset_classifier(num_classes)
        _logger.info(
            "The checkpoint's classifier of %d identities is dropped: %s.",
            num_classes,
            _whose(start.classifier_people),
        )
    elif start.num_classes and not hasattr(model, "forward_neck"):  # RGA models say it themselves
        _logger.info(
            "The checkpoint's classifier of %d classes is dropped: the model has %d.",
            start.num_classes,
            num_classes,
        )


def warn_of_people_seen(start: Start, test_sets: Sequence[Sequence[ReidSplits]]) -> None:
    """Log who is tested on and was trained on by the checkpoint; before hours of training."""
    for partitions in test_sets:
        for splits in partitions:
            for warning in train_test_overlap(splits, start.trained_on):
                _logger.warning("%s: of what is started from: %s", splits.name, warning)


def _whose(trained_on: Sequence[Mapping[str, Any]]) -> str:
    names = ", ".join(str(dataset.get("name")) for dataset in trained_on)
    if names and all("fingerprint" in dataset or "train_pids" in dataset for dataset in trained_on):
        return f"they are other people, of {names}"
    return "it does not say of which people" + (f" of {names}" if names else "")


def exported_model_args(args: argparse.Namespace, start: Start) -> dict[str, Any]:
    """What the run's model is to be rebuilt with, beside what is read off it."""
    changed = {"num_classes", *(["img_size"] if args.img_size else [])}
    kept = {name: value for name, value in start.model_args.items() if name not in changed}
    return {**kept, **args.model_kwargs}
