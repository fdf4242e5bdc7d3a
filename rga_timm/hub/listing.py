"""List the checkpoints, and where each would be loaded from."""

from dataclasses import astuple, dataclass

from rga_timm.evaluation.reports.tables import markdown_table
from rga_timm.weights import checkpoint_folder, hub_id, read_manifest, weights_folder

_HEADER = (
    "checkpoint", "trained on", "tested on", "licence", "source", "size (MB)", "mAP", "rank-1",
)  # fmt: skip


@dataclass(frozen=True)
class ListedCheckpoint:
    """A checkpoint that :func:`timm.create_model` loads by ``name``, model and tag.

    The scores are fractions, measured on ``dataset``. ``source`` is the folder or the repository on
    the Hub that it would be loaded from; ``size`` is that of the weights file in bytes.
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
    """List the checkpoints of this package's manifest and of the local weights folder, by name.

    Raises:
        NotADirectoryError: If RGA_TIMM_WEIGHTS names no folder.
        ValueError: If a manifest is invalid.
    """
    folder = weights_folder()
    published = read_manifest()
    table = []
    for name in sorted({*published, *(read_manifest(folder) if folder else ())}):
        local = checkpoint_folder(name)
        # The manifest beside the weights goes before the package's.
        entry = (local and read_manifest(local.parent).get(name)) or published.get(name)
        if not entry:
            continue  # the local manifest is out of date
        checkpoint = ListedCheckpoint(
            name,
            tuple(entry["trained_on"]),
            entry["dataset"],
            entry["license"],
            str(local or hub_id(name, entry["version"])),
            entry["size"],
            entry["metrics"]["mAP"],
            entry["metrics"]["rank1"],
        )
        table.append(checkpoint)
    return CheckpointTable(table)
