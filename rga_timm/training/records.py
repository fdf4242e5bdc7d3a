"""Write the records of a run of rga-timm finetune."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rga_timm.data.text_file import write_text
from rga_timm.evaluation import Compute, ModelRecord, Protocol, Report
from rga_timm.report_page import evaluate_side, write_page
from rga_timm.training.checkpoints import CheckpointSaver
from rga_timm.training.data import Data

SUMMARY = "summary.csv"
SCORES = ("mAP", "mAP_trapezoid", "mINP", "rank1")

_logger = logging.getLogger(__name__)


def record(
    run: Path, board: Any, saver: CheckpointSaver, epoch: int, losses: dict[str, float],
    lr: float, test_names: Sequence[str], reports: Sequence[Report],
) -> None:  # fmt: skip
    """Log an epoch, and save a checkpoint to resume from.

    Scores of the first test set are called mAP and so on, those of a further one NAME_mAP.
    """
    scores: dict[str, Any] = {}
    for i, name in enumerate(test_names):
        prefix = f"{name}_" if i else ""
        found = {**reports[i].scores, "rank1": reports[i].scores["rank-1"]} if reports else {}
        scores |= {f"{prefix}{score}": found.get(score, "") for score in SCORES}
    text = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
    for name, report in zip(test_names, reports, strict=False):
        on = f" on {name}" if len(test_names) > 1 else ""
        text += f", mAP{on} {report.metrics['mAP']:.1%}, rank-1 {report.metrics['cmc'][0]:.1%}"
    _logger.info("Epoch %d: %s, lr %.2e", epoch + 1, text, lr)
    row = {"epoch": epoch, **{f"train_{name}": value for name, value in losses.items()}}
    row |= {f"eval_{name}": value for name, value in scores.items()} | {"lr": lr}
    write_rows(run / SUMMARY, [*read_rows(run / SUMMARY), row])
    if board:
        for name, value in (losses | {k: v for k, v in scores.items() if v != ""}).items():
            board.add_scalar(name, value, epoch + 1)
        board.add_scalar("lr", lr, epoch + 1)
    saver.save(epoch, reports)  # last, so that an interruption before it only repeats the epoch


def read_rows(summary: Path) -> list[dict[str, Any]]:
    """Read a table of epochs, if there is one, without a row that is cut off."""
    if not summary.exists():
        return []
    with summary.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def write_rows(summary: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of epochs."""
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(name for row in rows for name in row))
    writer.writeheader()
    writer.writerows(rows)
    write_text(summary, text.getvalue())


def write_page_of_best(
    run: Path, model: Any, data: Data, record: ModelRecord, protocol: Protocol, compute: Compute
) -> Path | None:
    """Write ``report.html`` on the first test set, unless it has several partitions."""
    (splits, *others), page = data.test_sets[0], run / "report.html"
    if others:
        return None
    side = evaluate_side(model, splits, protocol, record, compute=compute)
    write_page(page, splits, [side])
    return page


def open_tensorboard(run: Path) -> Any:
    """Return a TensorBoard writer, or None if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"))
