"""What the scripts share: options that name a model and how it is run, and making it."""

from __future__ import annotations

import argparse
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import timm
import torch
from timm.data import resolve_data_config
from torch import distributed as dist

import rga_timm  # noqa: F401 - registers the models with timm
from rga_timm.evaluation.embedding.embed import Feature
from rga_timm.hub import takes_img_size


def add_model_options(
    parser: argparse.ArgumentParser, name: str = "model", *, optional: bool = False
) -> None:
    """Which model, with which weights; `name` may also be `--model`."""
    parser.add_argument(
        name,
        metavar="MODEL",
        nargs="?" if optional else None,
        help="a timm model name, or a model's folder as hf-hub:OWNER/NAME or local-dir:PATH",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights to load instead of the model's own: .safetensors, or a .pth of tensors",
    )
    weights.add_argument("--no-pretrained", action="store_true", help="take the untrained network")


def add_loading_options(parser: argparse._ActionsContainer) -> None:
    """How images are read."""
    parser.add_argument(
        "--img-size",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        help="input size in pixels (default: the model's)",
    )
    parser.add_argument(
        "--batch-size", type=positive_int, default=128, help="(default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=4, help="loader processes (default: 4)")


def add_feature_options(parser: argparse._ActionsContainer) -> None:
    """What is taken from the model."""
    parser.add_argument(
        "--feature",
        default="embedding",
        choices=get_args(Feature),
        help="after (embedding) or before (pooled) the BN neck; models without a neck have but one "
        "feature (default: %(default)s)",
    )
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
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--amp-dtype",
        choices=("float16", "bfloat16"),
        help="mixed precision (default: full precision)",
    )
    parser.add_argument("--channels-last", action="store_true", help="often faster on GPUs")


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


def check_run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message unless there is such a device."""
    if args.workers < 0:
        parser.error("--workers must not be negative")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without it
        parser.error(f"--device {args.device}: {error}")


def check_model(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message unless there is such a model, with such weights."""
    if args.model is None:
        parser.error("name a MODEL to evaluate, or reports to --compare")
    try:
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
    if args.checkpoint and not args.checkpoint.is_file():
        parser.error(f"there is no file {args.checkpoint}")


def create_model(args: argparse.Namespace, **model_kwargs: Any) -> torch.nn.Module:
    """The model with its weights, at the input size asked for; made with these arguments."""
    options: dict[str, Any] = {}
    if args.checkpoint:
        num_classes = classifier_width(args.model, args.checkpoint)
        # As weights of the model's own they pass through its conversions (official files, other
        # input sizes). The classifier as wide as the file's makes timm load strictly.
        overlay = {"file": str(args.checkpoint), "num_classes": num_classes, "label_offset": 0}
        options = {"num_classes": num_classes, "pretrained_cfg_overlay": overlay}
    elif args.no_pretrained:
        options = {"num_classes": 0}

    if args.img_size and takes_img_size(args.model):
        options["img_size"] = tuple(args.img_size)
    options.update(model_kwargs)
    torch.manual_seed(0)  # an untrained network is the same every time
    return timm.create_model(args.model, pretrained=not args.no_pretrained, **options)


def preprocessing(args: argparse.Namespace, model: torch.nn.Module) -> dict[str, Any]:
    """The model's data config, as timm resolves it, at the input size asked for."""
    wanted = {"input_size": (3, *args.img_size)} if args.img_size else {}
    return resolve_data_config(wanted, model=model)


def classifier_width(model: str, checkpoint: Path) -> int:
    """The number of classes that a checkpoint was trained on; 0 if it has no classifier."""
    weights = timm.models.load_state_dict(str(checkpoint), weights_only=True)
    cfg = timm.models.get_pretrained_cfg(model, allow_unregistered=True)
    names = (
        cfg.classifier if cfg and isinstance(cfg.classifier, tuple) else (cfg and cfg.classifier,)
    )
    for name in (*names, "cls"):  # cls: the paper's own code
        if f"{name}.weight" in weights:
            return len(weights[f"{name}.weight"])
    return 0


def checkpoint_name(args: argparse.Namespace) -> str | None:
    """What the report says about the weights."""
    if args.no_pretrained:
        return "untrained"
    return str(args.checkpoint) if args.checkpoint else None


def join_processes(args: argparse.Namespace) -> tuple[int, int]:
    """Which of how many processes this is, under torchrun. Each takes a GPU of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    if args.device == "cuda":
        args.device = f"cuda:{os.environ['LOCAL_RANK']}"
    # What is exchanged lies on the CPU; and one process may wait long for another.
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    return dist.get_rank(), dist.get_world_size()
