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
    """``NAME`` or ``NAME:OPTION=VALUE,OPTION=VALUE``, as a data set and options for it.

    Raises:
        ValueError: There is no such data set or option, or a value is not one of the option's.
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
    """The specs of all partitions for a spec with ``split=all``; else the spec alone.

    Raises:
        ValueError: The data set has no partitions.
    """
    info = dataset_info(spec)
    options = spec.partition(":")[2].split(",")
    if "split=all" not in options:
        return [spec]
    if info.partitions == 1:
        raise ValueError(f"{spec}: {info.name} has no partitions to take all of")
    splits = (f"split={number}" for number in range(info.partitions))
    return [
        f"{info.name}:{','.join(split if option == 'split=all' else option for option in options)}"
        for split in splits
    ]


def create_dataset(spec: str, root: str | Path | None = None, **options: Any) -> ReidSplits:
    """Read a data set, and log what is unusual about it.

    Args:
        spec: One of `list_datasets`, alone or with options: ``viper:split=3``.
        root: Folder of the data set, or a folder above it; ``~`` is the home directory.
            Only the data set that is drawn (`pedestrians`) and the Hub's do without.
        options: The options as arguments; they win over those in ``spec``.

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
            raise ValueError(
                f"{option} of {info.name} is one of {', '.join(map(str, choices))}, not {value!r}"
            )
    if "split" in given and info.partitions > 1 and not 0 <= given["split"] < info.partitions:
        raise ValueError(
            f"split {given['split']} is not one of the {info.partitions} partitions of "
            f"{info.title}, 0 to {info.partitions - 1}"
        )
    splits = info.factory(None if root is None else Path(root).expanduser(), **given)
    if splits.published is None:
        splits = replace(splits, published=info.published)
    unusual = [
        f"{option}={str(value).lower() if isinstance(value, bool) else value}"
        for option, value in sorted(given.items())
        if value != info.options[option].default and option not in _PATHS
    ]
    # A reader that finds out an option by itself has named it: msmt17:version=v2.
    name, _, named = splits.name.partition(":")
    if options_of_name := sorted({*unusual, *filter(None, named.split(","))}):
        splits = replace(splits, name=f"{name}:{','.join(options_of_name)}")
    splits.warn_unexpected()
    return splits


def read_partitions(spec: str, folder: str | Path | None) -> list[ReidSplits]:
    """A data set; all of its partitions where the spec says ``split=all``."""
    return [create_dataset(partition, folder) for partition in partition_specs(spec)]


def pair_with_folders(
    specs: Sequence[str], folders: Sequence[str | Path], *, option: str = "--data-dir"
) -> list[tuple[str, str | Path | None]]:
    """Each data set with the folder that it is looked for in: one for all, or one each.

    With several data sets, those that need no folder get None.

    Raises:
        ValueError: The numbers do not fit, or a spec is invalid.
    """
    needs_folder = []
    for spec in specs:
        info, options = parse_spec(partition_specs(spec)[0])
        needs_folder.append(info.name != "pedestrians" and "repo" not in options)
    if len(specs) == 1 and len(folders) <= 1:
        return [(specs[0], folders[0] if folders else None)]
    count = sum(needs_folder)
    if len(folders) > 1 and len(folders) != count:
        raise ValueError(
            f"{option} is one folder for all data sets or one for each: "
            f"there are {len(folders)} for {count}"
        )
    left = iter(folders if len(folders) > 1 else [*folders] * count)
    return [
        (spec, next(left, None) if needs else None)
        for spec, needs in zip(specs, needs_folder, strict=True)
    ]


def leave_out_bad_images(splits: ReidSplits, workers: int) -> tuple[ReidSplits, list[str]]:
    """The data set without images that cannot be decoded, and a line for each of those."""
    splits, bad = skip_bad_images(splits, workers=workers)
    lines = [f"{splits.name} {split} {path}: {reason}" for split, path, reason in bad]
    for line in lines:
        _logger.warning("left out: %s", line)
    if lines:
        _logger.warning("%s: %d images that cannot be read are left out", splits.name, len(lines))
    return splits, lines


def _parse(text: str, kind: Any) -> Any:
    """An option's value; a ValueError says what it should be."""
    arguments = typing.get_args(kind)
    if type(None) in arguments:
        if text.lower() == "none":
            return None
        kind = next(argument for argument in arguments if argument is not type(None))
    if choices := _choices(kind):
        if text not in map(str, choices):
            raise ValueError(f"one of {', '.join(map(str, choices))}")
        return next(choice for choice in choices if str(choice) == text)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise ValueError({int: "a whole number", float: "a number"}[kind]) from None


def _choices(kind: Any) -> tuple[Any, ...]:
    """The values of an option of a Literal type, or of that or None; empty for other types."""
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    several = typing.get_args(kind)
    literals = [choice for one in several for choice in _choices(one)]
    return (*literals, None) if literals and type(None) in several else tuple(literals)


def _offer(info: DatasetInfo) -> str:
    options = [f"{name}={parameter.default}" for name, parameter in info.options.items()]
    return f"Its options are {', '.join(options)}" if options else "It has no options"
