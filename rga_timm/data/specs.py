"""Data sets as a command line names them: specs, the folders they lie in, their partitions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from .checks import skip_bad_images
from .registry import create_dataset, list_datasets, parse_spec, partition_specs
from .splits import ReidSplits

_logger = logging.getLogger(__name__)

FORM = "NAME[:OPTION=VALUE,...]"


def dataset_help() -> str:
    """The names, for an option's help."""
    return f"one or more of {', '.join(list_datasets())}; with options as in viper:split=3"


def pair_with_folders(
    specs: Sequence[str], folders: Sequence[str | Path], *, option: str = "--data-dir"
) -> list[tuple[str, str | Path | None]]:
    """Each data set with the folder that it is looked for in: one for all, or one each.

    Raises:
        ValueError: The numbers do not fit, or a spec is none.
    """
    for spec in specs:
        for partition in partition_specs(spec):
            parse_spec(partition)
    if len(specs) == 1 and len(folders) <= 1:
        return [(specs[0], folders[0] if folders else None)]
    lying = [spec for spec in specs if not _lies_nowhere(spec)]
    if len(folders) > 1 and len(folders) != len(lying):
        raise ValueError(
            f"{option} is one folder for all data sets or one for each: "
            f"there are {len(folders)} for {len(lying)}"
        )
    left = iter(folders if len(folders) > 1 else [*folders] * len(lying))
    return [(spec, None if _lies_nowhere(spec) else next(left, None)) for spec in specs]


def _lies_nowhere(spec: str) -> bool:
    """Whether a data set makes itself, or is one of the Hub, so that no folder is meant for it."""
    info, options = parse_spec(partition_specs(spec)[0])
    return info.name == "pedestrians" or "repo" in options


def read_partitions(spec: str, folder: str | Path | None) -> list[ReidSplits]:
    """A data set; all of its partitions where the spec says ``split=all``."""
    return [create_dataset(partition, folder) for partition in partition_specs(spec)]


def leave_out_bad_images(splits: ReidSplits, workers: int) -> tuple[ReidSplits, list[str]]:
    """The data set without images that cannot be decoded, and a line for each of those."""
    splits, bad = skip_bad_images(splits, workers=workers)
    lines = [f"{splits.name} {split} {path}: {reason}" for split, path, reason in bad]
    for line in lines:
        _logger.warning("left out: %s", line)
    if lines:
        _logger.warning("%s: %d images that cannot be read are left out", splits.name, len(lines))
    return splits, lines
