"""Options that several commands share, and functions that apply them."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from timm.utils import ParseKwargs

from rga_timm.data.writable import check_writable_file, check_writable_folder
from rga_timm.evaluation import Compute, Protocol
from rga_timm.evaluation.compute import check_device, keep_freed_memory
from rga_timm.evaluation.dataset import embed_loader
from rga_timm.hub import model_source
from rga_timm.hub.model_file import ChannelOrder
from rga_timm.training.config import TrainConfig
from rga_timm.training.ranges import Range

Number = TypeVar("Number", int, float)


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
    """Add the model and its weights; `name` may also be `--model`."""
    nargs = "?" if optional else None
    text = f"{model_source.MODEL_HELP}; {model_source.FILE_HELP}"
    parser.add_argument(name, metavar="MODEL", nargs=nargs, help=text)
    weights = parser.add_mutually_exclusive_group()
    text = "weights to load instead of the model's own: .safetensors, or a .pth of tensors"
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help=text)
    weights.add_argument("--no-pretrained", action="store_true", help="take the untrained network")


class ParseModelKwargs(ParseKwargs):
    """timm's KEY=VALUE, with YAML's ``true`` and ``false`` for True and False."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        """Read the values of the option for argparse."""
        if wrong := [value for value in values if not value.partition("=")[1]]:
            parser.error(f"{option} {wrong[0]}: KEY=VALUE is meant")
        super().__call__(parser, namespace, values, option)
        kwargs = getattr(namespace, self.dest)
        truth = {"true": True, "false": False}
        kwargs.update({k: truth[v] for k, v in kwargs.items() if v in ("true", "false")})


def add_config_options(parser: argparse._ActionsContainer, *names: str, **changes: Any) -> None:
    """Add fields of `TrainConfig` as options; `changes` replace arguments for argparse."""
    types = get_type_hints(TrainConfig)
    for field in fields(TrainConfig):
        if field.name not in names:
            continue
        factory = field.default_factory
        default = field.default if factory is MISSING else factory()
        argument = {
            "default": list(default) if isinstance(default, tuple) else default,
            "help": field.metadata["help"],
            **_argument(types[field.name], field.metadata["range"]),
            **field.metadata["argument"],
        }
        parser.add_argument(f"--{field.name.replace('_', '-')}", **argument | changes)


def _argument(kind: Any, limits: Range) -> dict[str, Any]:
    """Return the arguments by which argparse reads values of a type."""
    parts = [part for part in get_args(kind) if part is not NoneType]
    if len(parts) < len(get_args(kind)):  # optional
        (kind,), parts = parts, list(get_args(parts[0]))
    origin = get_origin(kind)
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if origin is Literal:
        return {"choices": parts}
    if origin is Mapping:
        return {"action": ParseModelKwargs, "nargs": "*", "metavar": "KEY=VALUE"}
    nargs: dict[str, Any] = {}
    if origin in (tuple, Sequence):
        nargs, kind = {"nargs": len(parts) if origin is tuple else "+"}, parts[0]
    return {**nargs, "type": number(kind, limits) if kind in (int, float) else kind}


def number(kind: type[Number], limits: Range) -> Callable[[str], Number]:
    """Return a function that reads a number of a range for argparse."""

    def read(text: str) -> Number:
        value = kind(text)
        if misfit := limits.misfit(value):
            raise argparse.ArgumentTypeError(misfit)
        return value

    read.__name__ = kind.__name__  # for argparse's message on what is no number
    return read


positive_int = number(int, Range(minimum=1))
non_negative_int = number(int, Range(minimum=0))
positive_float = number(float, Range(above=0))
rate = number(float, Range(minimum=0, maximum=1))


def add_data_options(parser: argparse._ActionsContainer) -> None:
    """Add ``--dataset``, ``--data-dir`` and ``--skip-bad-images``."""
    add_config_options(parser, "dataset", "data_dir", "skip_bad_images")


def add_model_kwargs(parser: argparse._ActionsContainer, text: str) -> None:
    """Add ``--model-kwargs``, arguments of the model."""
    add_config_options(parser, "model_kwargs", help=text)


def add_img_size_option(parser: argparse._ActionsContainer) -> None:
    """``--img-size``."""
    add_config_options(parser, "img_size")


def add_feature_option(parser: argparse._ActionsContainer) -> None:
    """``--feature``."""
    add_config_options(parser, "feature")


def add_loading_options(parser: argparse._ActionsContainer) -> None:
    """Add options for loading images."""
    add_img_size_option(parser)
    parser.add_argument("--batch-size", type=positive_int, default=128, help="(default: 128)")
    add_config_options(parser, "workers", help="loader processes (default: 4)")


def add_preprocessing_options(parser: argparse._ActionsContainer) -> None:
    """Add options for what a model's own configuration says otherwise."""
    add = parser.add_argument
    rgb: dict[str, Any] = {"nargs": 3, "metavar": ("R", "G", "B")}
    text = "subtracted from pixels in 0 ... 1 (default: the model's own)"
    add("--mean", type=number(float, Range()), **rgb, help=text)
    text = "by which they are then divided (default: the model's own)"
    add("--std", type=positive_float, **rgb, help=text)
    text = "the order in which a file of another runtime takes channels (default: as the file says)"
    add("--channel-order", choices=get_args(ChannelOrder), help=text)


def add_feature_options(parser: argparse._ActionsContainer) -> None:
    """Add options for the features of the model."""
    add_feature_option(parser)
    add = parser.add_argument
    add("--flip", action="store_true", help="average with the mirror image's feature")
    text = "average the normalised features of the images resized by each factor (default: 1)"
    add("--scales", type=positive_float, nargs="+", default=[1.0], metavar="X", help=text)


def add_run_options(parser: argparse._ActionsContainer) -> None:
    """Add options for device, precision and memory format."""
    parser.set_defaults(rank=0, world_size=1)  # else what `init_distributed` gives
    add_config_options(parser, "device", "channels_last")
    choices = ("bfloat16", "float16")
    add_config_options(parser, "amp_dtype", choices=choices, help="of mixed precision, if any")


def prepare_run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message unless the device exists; make it ready."""
    try:
        check_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    keep_freed_memory(args.device)


def check_model(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message unless model and weights exist."""
    own_weights = not (args.no_pretrained or args.checkpoint)
    if args.checkpoint and not args.checkpoint.is_file():
        parser.error(f"there is no file {args.checkpoint}")
    try:
        args.model = model_source.resolve_model(args.model)
        is_file = model_source.is_model_file(args.model)
        if getattr(args, "channel_order", None) and not is_file:
            parser.error("--channel-order is for files of other runtimes: timm models take RGB")
        if (":" in args.model or is_file) and not own_weights:
            parser.error(f"{args.model} brings its weights: no --checkpoint, no --no-pretrained")
        args.model = model_source.check_model(args.model, own_weights=own_weights)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def create_model(args: argparse.Namespace, **model_kwargs: Any) -> torch.nn.Module:
    """The model that `add_model_options` asks for; raises as the function of `model_source`."""
    if args.no_pretrained:
        model_kwargs.setdefault("num_classes", 0)
    if model_source.is_model_file(args.model):
        names = ("mean", "std", "channel_order")
        model_kwargs |= {name: getattr(args, name, None) for name in names}
        return model_source.create_model(args.model, img_size=args.img_size, **model_kwargs)
    torch.manual_seed(0)  # an untrained network is the same every time
    return model_source.create_model(
        args.model, pretrained=not args.no_pretrained, checkpoint=args.checkpoint,
        img_size=args.img_size, **model_kwargs,
    )  # fmt: skip


def preprocessing(args: argparse.Namespace, model: torch.nn.Module) -> dict[str, Any]:
    """The model's data config, as timm resolves it, with the changes that the options ask for."""
    wanted = {name: getattr(args, name, None) for name in ("mean", "std")}
    return model_source.data_config(model, img_size=args.img_size, **wanted)


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


def check_output_file(file: Path, parser: argparse.ArgumentParser, suffix: str = ".json") -> None:
    """End with a message unless the file can be written, as `check_writable_file`."""
    try:
        check_writable_file(file, suffix)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def check_output_folder(folder: Path, parser: argparse.ArgumentParser) -> None:
    """End with a message unless files can be written to the folder."""
    try:
        check_writable_folder(folder)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def checkpoint_name(args: argparse.Namespace) -> str | None:
    """Return the report's name of the weights."""
    if args.no_pretrained:
        return "untrained"
    return str(args.checkpoint) if args.checkpoint else None
