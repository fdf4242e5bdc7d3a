"""Data sets as a command line names them, with options: ``market1501``, ``viper:split=3``."""

from __future__ import annotations

import logging
import typing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from .checks import skip_bad_images
from .registry import DatasetInfo, dataset_info, list_datasets
from .splits import ReidSplits

_logger = logging.getLogger(__name__)

FORM = "NAME[:OPTION=VALUE,...]"
# Options that are paths. A data set's name is without them: it is published.
_PATHS = ("images", "split_file")


def dataset_help() -> str:
    """The names, for an option's help."""
    return f"one or more of {', '.join(list_datasets())}; with options as in viper:split=3"


def parse_spec(spec: str) -> tuple[DatasetInfo, dict[str, Any]]:
    """Parse ``NAME:OPTION=VALUE,OPTION=VALUE`` into a data set and its options.

    An unknown data set or option, or an invalid value, is a ValueError.
    """
    info = dataset_info(spec)
    options = {}
    for item in filter(None, spec.partition(":")[2].split(",")):
        option, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"{spec}: {item!r} is not OPTION=VALUE. {_offer(info)}")
        if option not in info.options:
            raise ValueError(f"{spec}: {info.name} has no option {option!r}. {_offer(info)}")
        if option in options:
            raise ValueError(f"{spec}: {option} is given twice")
        try:
            options[option] = _parse(text, info.options[option].annotation)
        except ValueError as error:
            raise ValueError(f"{spec}: {option} is {error}, not {text!r}") from error
    return info, options


def partition_specs(spec: str) -> list[str]:
    """List the specs of all partitions if the spec says ``split=all``; else the spec alone."""
    info = dataset_info(spec)
    if "split=all" not in spec.partition(":")[2].split(","):
        return [spec]
    if info.partitions == 1:
        raise ValueError(f"{spec}: {info.name} has no partitions to take all of")
    before, _, after = spec.partition("split=all")
    return [f"{before}split={number}{after}" for number in range(info.partitions)]


def create_dataset(spec: str, root: str | Path | None = None, **options: Any) -> ReidSplits:
    """Read a data set, and log what is unusual about it.

    ``spec`` is one of `list_datasets`, alone or with options: ``viper:split=3``. Options given as
    arguments win over those. ``root`` is the folder of the data set, or one above it; only
    `pedestrians`, which is drawn, and data sets of the Hub need none.

    Raises:
        ValueError: There is no such data set or option, or its files are invalid.
        FileNotFoundError: ``root`` does not hold the data set, or not all of it.
        ImportError: A package is missing that reads its files.
    """
    info, given = parse_spec(spec)
    given.update(options)
    if unknown := [option for option in given if option not in info.options]:
        raise ValueError(f"{info.name} has no option {unknown[0]!r}. {_offer(info)}")
    for option, value in given.items():
        choices = _choices(info.options[option].annotation)
        if choices and value not in choices:
            offered = ", ".join(map(str, choices))
            raise ValueError(f"{option} of {info.name} is one of {offered}, not {value!r}")
    if "split" in given and info.partitions > 1 and not 0 <= given["split"] < info.partitions:
        offered = f"the {info.partitions} partitions of {info.title}, 0 to {info.partitions - 1}"
        raise ValueError(f"split {given['split']} is not one of {offered}")
    splits = info.factory(None if root is None else Path(root).expanduser(), **given)
    if splits.published is None:
        splits = replace(splits, published=info.published)
    unusual = [
        f"{option}={str(value).lower() if isinstance(value, bool) else value}"
        for option, value in sorted(given.items())
        if value != info.options[option].default and option not in _PATHS
    ]
    # A reader names an option that it finds out by itself: msmt17:version=v2.
    name, _, named = splits.name.partition(":")
    if named_options := sorted({*unusual, *filter(None, named.split(","))}):
        splits = replace(splits, name=f"{name}:{','.join(named_options)}")
    splits.warn_unexpected()
    return splits


def read_partitions(spec: str, folder: str | Path | None) -> list[ReidSplits]:
    """Read a data set; all of its partitions if the spec says ``split=all``."""
    return [create_dataset(partition, folder) for partition in partition_specs(spec)]


def pair_with_folders(
    specs: Sequence[str], folders: Sequence[str | Path], *, option: str = "--data-dir"
) -> list[tuple[str, str | Path | None]]:
    """Pair each data set with its folder: one folder for all, or one for each that needs one.

    With several data sets, those that need no folder get None. Other numbers are a ValueError.
    """
    parsed = [parse_spec(partition_specs(spec)[0]) for spec in specs]
    needs = [info.name != "pedestrians" and "repo" not in options for info, options in parsed]
    if len(specs) == 1 and len(folders) <= 1:
        return [(specs[0], folders[0] if folders else None)]
    count = sum(needs)
    if len(folders) > 1 and len(folders) != count:
        text = f"{option} is one folder for all data sets or one for each"
        raise ValueError(f"{text}: there are {len(folders)} for {count}")
    left = iter(folders if len(folders) > 1 else [*folders] * count)
    return [
        (spec, next(left, None) if need else None) for spec, need in zip(specs, needs, strict=True)
    ]


def leave_out_bad_images(splits: ReidSplits, workers: int) -> tuple[ReidSplits, list[str]]:
    """Drop the images that cannot be decoded; return a line for each of them too."""
    splits, bad = skip_bad_images(splits, workers=workers)
    lines = [f"{splits.name} {split} {path}: {reason}" for split, path, reason in bad]
    for line in lines:
        _logger.warning("left out: %s", line)
    if lines:
        _logger.warning("%s: %d images that cannot be read are left out", splits.name, len(lines))
    return splits, lines


def _parse(text: str, kind: Any) -> Any:
    """Return an option's value, or raise a ValueError that says what it should be."""
    arguments = typing.get_args(kind)
    if type(None) in arguments:
        if text.lower() == "none":
            return None
        kind = next(argument for argument in arguments if argument is not type(None))
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    if choices := {str(choice): choice for choice in _choices(kind)}:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return choices[text]
    try:
        return kind(text)
    except ValueError:
        raise ValueError({int: "a whole number", float: "a number"}[kind]) from None


def _choices(kind: Any) -> tuple[Any, ...]:
    """The values of an option of a Literal type, or of that or None; empty for other types."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return arguments
    literals = tuple(choice for one in arguments for choice in _choices(one))
    return (*literals, None) if literals and type(None) in arguments else literals


def _offer(info: DatasetInfo) -> str:
    options = [f"{name}={parameter.default}" for name, parameter in info.options.items()]
    return f"Its options are {', '.join(options)}" if options else "It has no options"
