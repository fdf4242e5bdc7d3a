"""Options that several commands share, and what is made of them."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import timm
import torch
from timm.data import resolve_data_config
from timm.utils import ParseKwargs

from rga_timm.data.specs import FORM, dataset_help
from rga_timm.evaluation import Compute, Protocol
from rga_timm.evaluation.cpu_memory import keep_freed_memory
from rga_timm.evaluation.dataset import embed_loader
from rga_timm.evaluation.embedding.embed import Feature
from rga_timm.hub import takes_img_size
from rga_timm.hub.model_source import (
    MODEL_HELP,
    check_described,
    classifier_width,
    model_errors,
    read_model_folder,
    resolve_model,
)


def create_parser(verb: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of a command, described by the docstring of its module."""
    return argparse.ArgumentParser(
        prog=f"rga-timm {verb}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_options(
    parser: argparse.ArgumentParser, name: str = "model", *, optional: bool = False
) -> None:
    """Which model, with which weights; `name` may also be `--model`."""
    parser.add_argument(
        name,
        metavar="MODEL",
        nargs="?" if optional else None,
        help=MODEL_HELP,
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights to load instead of the model's own: .safetensors, or a .pth of tensors",
    )
    weights.add_argument("--no-pretrained", action="store_true", help="take the untrained network")


class ParseModelKwargs(ParseKwargs):
    """timm's KEY=VALUE as Python has it, and ``true`` and ``false`` as YAML and JSON have them.

    timm takes these two for texts, and any text for true.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Read the values of the option, as argparse asks for it."""
        if wrong := [value for value in values if not value.partition("=")[1]]:
            parser.error(f"{option_string} {wrong[0]}: KEY=VALUE is meant")
        super().__call__(parser, namespace, values, option_string)
        kwargs = getattr(namespace, self.dest)
        truth = {"true": True, "false": False}
        kwargs.update({k: truth[v] for k, v in kwargs.items() if v in ("true", "false")})


def add_model_kwargs(parser: argparse._ActionsContainer, text: str) -> None:
    """Arguments of the model, ``--model-kwargs``."""
    parser.add_argument(
        "--model-kwargs",
        nargs="*",
        default={},
        action=ParseModelKwargs,
        metavar="KEY=VALUE",
        help=text,
    )


def add_img_size_option(parser: argparse._ActionsContainer) -> None:
    """``--img-size``."""
    parser.add_argument(
        "--img-size",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        help="input size in pixels (default: the model's)",
    )


def add_feature_option(parser: argparse._ActionsContainer) -> None:
    """``--feature``."""
    parser.add_argument(
        "--feature",
        default="embedding",
        choices=get_args(Feature),
        help="after (embedding) or before (pooled) the BN neck; models without a neck have but one "
        "feature (default: %(default)s)",
    )


def add_loading_options(parser: argparse._ActionsContainer) -> None:
    """How images are read."""
    add_img_size_option(parser)
    parser.add_argument(
        "--batch-size", type=positive_int, default=128, help="(default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=4, help="loader processes (default: 4)")


def add_feature_options(parser: argparse._ActionsContainer) -> None:
    """What is taken from the model, and of how many versions of an image."""
    add_feature_option(parser)
    parser.add_argument(
        "--flip", action="store_true", help="average with the mirror image's feature"
    )
    parser.add_argument(
        "--scales",
        type=positive_float,
        nargs="+",
        default=[1.0],
        metavar="X",
        help="average the normalised features of the images resized by each factor (default: 1)",
    )


def add_run_options(parser: argparse._ActionsContainer) -> None:
    """What the model runs on."""
    parser.set_defaults(rank=0, world_size=1)  # else what `init_distributed` gives
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--amp-dtype",
        choices=("float16", "bfloat16"),
        help="mixed precision (default: full precision)",
    )
    parser.add_argument(
        "--channels-last",
        action="store_true",
        help="memory format; often faster",
    )


def positive_float(text: str) -> float:
    """An argparse type."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def positive_int(text: str) -> int:
    """An argparse type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def prepare_run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message unless there is such a device; make it ready."""
    if args.workers < 0:
        parser.error("--workers must not be negative")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without it
        parser.error(f"--device {args.device}: {error}")
    keep_freed_memory(args.device)


def check_model(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message unless there is such a model, with such weights."""
    try:
        args.model = resolve_model(args.model)
        source, name = timm.models.parse_model_name(args.model)
    except ValueError as error:
        parser.error(str(error))
    if source is None:
        if not timm.is_model(name):
            parser.error(f"timm knows no model {name!r}; timm.list_models('*PATTERN*') lists them")
        try:
            cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
        except RuntimeError as error:  # an unknown tag
            parser.error(str(error))
        own_weights = not (args.no_pretrained or args.checkpoint)
        if own_weights and not (cfg and cfg.has_weights):
            parser.error(f"{name} has no weights of its own: --checkpoint or --no-pretrained")
    elif args.checkpoint or args.no_pretrained:
        parser.error(f"{args.model} brings its weights: no --checkpoint, no --no-pretrained")
    elif source == "local-dir":
        try:
            read_model_folder(name)
        except ValueError as error:
            parser.error(str(error))
    if source == "hf-hub":
        try:
            check_described(args.model)
        except (ValueError, OSError) as error:
            parser.error(str(error))
    if args.checkpoint and not args.checkpoint.is_file():
        parser.error(f"there is no file {args.checkpoint}")


def create_model(args: argparse.Namespace, **model_kwargs: Any) -> torch.nn.Module:
    """The model with its weights, at the input size asked for; made with these arguments.

    Raises:
        ValueError: The weights are none, damaged or another model's; or the model does not take the
            size.
        OSError: A file cannot be read, or a repository cannot be reached.
    """
    options: dict[str, Any] = {}
    if args.checkpoint:
        num_classes = classifier_width(args.model, args.checkpoint)
        # As weights of the model's own they pass through its conversions (official files, other
        # input sizes). The classifier as wide as the file's makes timm load strictly.
        overlay = {"file": str(args.checkpoint), "num_classes": num_classes, "label_offset": 0}
        options = {"num_classes": num_classes, "pretrained_cfg_overlay": overlay}
    elif args.no_pretrained:
        options = {"num_classes": 0}

    torch.manual_seed(0)  # an untrained network is the same every time
    with model_errors(args.model, args.checkpoint):
        if args.img_size and takes_img_size(args.model):
            options["img_size"] = tuple(args.img_size)
        options.update(model_kwargs)
        return timm.create_model(args.model, pretrained=not args.no_pretrained, **options)


def preprocessing(args: argparse.Namespace, model: torch.nn.Module) -> dict[str, Any]:
    """The model's data config, as timm resolves it, at the input size asked for."""
    wanted = {"input_size": (3, *args.img_size)} if args.img_size else {}
    return resolve_data_config(wanted, model=model)


def embed_options(args: argparse.Namespace) -> dict[str, Any]:
    """How features are taken from the model, as arguments of `embed`."""
    return {
        "device": args.device,
        "feature": args.feature,
        "flip": args.flip,
        "scales": args.scales,
        "amp_dtype": getattr(torch, args.amp_dtype) if args.amp_dtype else None,
        "channels_last": args.channels_last,
    }


def compute_of(args: argparse.Namespace) -> Compute:
    """What the options say of device, batches and processes."""
    return Compute(
        device=args.device,
        batch_size=args.batch_size,
        num_workers=args.workers,
        channels_last=args.channels_last,
        distributed=args.world_size > 1,
        progress=args.rank == 0,
    )


def protocol_of(args: argparse.Namespace, config: dict[str, Any], **ranking: Any) -> Protocol:
    """What the options and the model's data config say of the test, beside the ranking."""
    return Protocol.of_data_config(
        config,
        feature=args.feature,
        flip=args.flip,
        scales=tuple(args.scales),
        amp_dtype=args.amp_dtype,
        **ranking,
    )


def feature_width(args: argparse.Namespace, model: torch.nn.Module, config: dict[str, Any]) -> int:
    """The width of the features, found out by an empty image; before any other is read.

    Raises:
        ValueError: The model cannot take images of all of these scales.
    """
    empty = torch.zeros(1, *config["input_size"]), torch.zeros(1, 2, dtype=torch.int64)
    compute = replace(compute_of(args), distributed=False, progress=False)
    return embed_loader(model, [empty], protocol_of(args, config), compute).features.shape[1]


def check_output_file(file: Path, parser: argparse.ArgumentParser) -> None:
    """End with a message unless a file can be written there."""
    if not file.parent.is_dir():
        parser.error(f"there is no folder {file.parent} to write {file.name} to")
    if file.is_dir():
        parser.error(f"{file} is a folder, not a file to write to")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        parser.error(f"{file} must not be written: there is no permission")


def check_output_folder(folder: Path, parser: argparse.ArgumentParser) -> None:
    """End with a message unless there can be such a folder, and files in it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        parser.error(f"{there} is a file, not a folder")
    if not os.access(there, os.W_OK):
        parser.error(f"{folder} must not be written: there is no permission")


def checkpoint_name(args: argparse.Namespace) -> str | None:
    """What the report says about the weights."""
    if args.no_pretrained:
        return "untrained"
    return str(args.checkpoint) if args.checkpoint else None


def add_data_options(parser: argparse._ActionsContainer) -> None:
    """``--dataset``, ``--data-dir`` and ``--skip-bad-images``."""
    parser.add_argument(
        "--dataset", nargs="+", default=["pedestrians"], metavar=FORM, help=dataset_help()
    )
    parser.add_argument(
        "--data-dir",
        nargs="+",
        default=[],
        metavar="DIR",
        help="where they lie: one folder for all, or one for each; pedestrians can do without",
    )
    parser.add_argument(
        "--skip-bad-images",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="decode every image first, and leave out those that cannot be",
    )
