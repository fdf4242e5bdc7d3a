"""The checkpoints of the zoo, and where each would come from."""

from dataclasses import astuple, dataclass
from pathlib import Path

from rga_timm.evaluation.reports.markdown import markdown_table
from rga_timm.weights import WEIGHTS_FILE, hub_id, read_manifest, weights_folder

_HEADER = (
    "checkpoint",
    "trained on",
    "tested on",
    "licence",
    "source",
    "size (MB)",
    "mAP",
    "rank-1",
)


@dataclass(frozen=True)
class ListedCheckpoint:
    """A checkpoint.

    Attributes:
        name: Model and tag, for :func:`timm.create_model`.
        trained_on: Names of data sets.
        dataset: What the scores were measured on.
        licence: Of the weights.
        source: The folder, or the Hub's repository, that they would be loaded from.
        size: Of the weights file, in bytes.
        mean_average_precision: A fraction.
        rank1: A fraction.
    """

    name: str
    trained_on: tuple[str, ...]
    dataset: str
    licence: str
    source: str
    size: int
    mean_average_precision: float
    rank1: float


class CheckpointTable(tuple[ListedCheckpoint, ...]):
    """Checkpoints that print as a table, sizes in MB (10^6 bytes), scores in percent."""

    __slots__ = ()

    def __str__(self) -> str:
        """A Markdown table, readable as plain text."""
        rows = [_HEADER]
        for checkpoint in self:
            name, trained_on, dataset, licence, source, size, *scores = astuple(checkpoint)
            percents = (f"{100 * score:.1f}" for score in scores)
            size = f"{size / 1e6:.1f}"
            rows.append((name, ", ".join(trained_on), dataset, licence, source, size, *percents))
        return markdown_table(rows, text=5)


def list_checkpoints() -> CheckpointTable:
    """The checkpoints of this package's manifest and of the local weights folder.

    Returns:
        A tuple by name, which prints as a table.

    Raises:
        NotADirectoryError: If RGA_TIMM_WEIGHTS names no folder.
        ValueError: If a manifest is none.
    """
    folder = weights_folder()
    published = read_manifest()
    local = read_manifest(folder) if folder else {}
    table = []
    for name in sorted({*published, *local}):
        file = folder / name / WEIGHTS_FILE if folder else Path()
        lies_here = file.is_file()
        if not lies_here and name not in published:
            continue  # the local manifest is out of date
        # What is said of a checkpoint is said where it would be loaded from.
        entry = local[name] if lies_here and name in local else published[name]
        table.append(
            ListedCheckpoint(
                name,
                tuple(entry["trained_on"]),
                entry["dataset"],
                entry["license"],
                str(file.parent) if lies_here else hub_id(name, entry["version"]),
                entry["size"],
                entry["metrics"]["mAP"],
                entry["metrics"]["rank1"],
            )
        )
    return CheckpointTable(table)
