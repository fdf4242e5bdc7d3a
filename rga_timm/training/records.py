"""Write the records of a run of rga-timm finetune, and read them to resume it."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timm import utils
from timm.task import load_task_ema_checkpoint, resume_task_checkpoint

from rga_timm.evaluation import Compute, ModelRecord, Protocol, Report, save_reports
from rga_timm.report_page import evaluate_side, write_page
from rga_timm.task import ReidTask
from rga_timm.training.config import TrainConfig
from rga_timm.training.data import Data
from rga_timm.training.start import Start

SCORES = ("mAP", "mAP_trapezoid", "mINP", "rank1")

_logger = logging.getLogger(__name__)


def resume(
    run: Path, task: ReidTask, optimizer: torch.optim.Optimizer,
    scaler: utils.NativeScaler | None, *, is_main: bool,
) -> tuple[int, tuple[float, int] | None]:  # fmt: skip
    """Restore the newest checkpoint; return the next epoch, and (mAP, epoch) of the best so far."""
    newest, epoch = None, -1
    for path in [*run.glob("last.pth.tar"), *run.glob("recovery-*.pth.tar")]:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"]
        if found > epoch:
            newest, epoch = path, found
    if newest is None:
        _logger.info("%s holds no checkpoint yet: it starts again at its first epoch.", run)
    else:
        resume_task_checkpoint(task, newest, optimizer, scaler, log_info=is_main)
        if task.has_ema():
            load_task_ema_checkpoint(task, newest)
    summary = run / "summary.csv"
    if not is_main or not summary.exists():
        return epoch + 1, None
    with summary.open(newline="") as file:  # epochs that are done again go
        rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= epoch]
    if not rows:
        summary.unlink()
        return epoch + 1, None
    kept = summary.with_suffix(".tmp")
    with kept.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    kept.replace(summary)
    scored = [(float(row["eval_mAP"]), int(row["epoch"])) for row in rows if row["eval_mAP"]]
    return epoch + 1, max(scored, default=None)


def record(
    run: Path, board: Any, saver: utils.CheckpointSaver, epoch: int, losses: dict[str, float],
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
    utils.update_summary(epoch, losses, scores, str(run / "summary.csv"), lr=lr,
                         write_header=not (run / "summary.csv").exists())  # fmt: skip
    if board:
        for name, value in (losses | {k: v for k, v in scores.items() if v != ""}).items():
            board.add_scalar(name, value, epoch + 1)
        board.add_scalar("lr", lr, epoch + 1)
    # Last, so that an interruption before it only repeats the epoch.
    if reports:
        saver.save_checkpoint(epoch, reports[0].metrics["mAP"])
        if saver.best_epoch == epoch:
            save_reports(reports, run / "report.json")
    else:
        saver.save_recovery(epoch)


def write_page_of_best(
    config: TrainConfig, run: Path, model: Any, data: Data, start: Start, protocol: Protocol
) -> Path | None:
    """Write ``report.html`` on the first test set, unless it has several partitions."""
    (splits, *others), page = data.test_sets[0], run / "report.html"
    if others:
        return None
    side = evaluate_side(
        model,
        splits,
        protocol,
        ModelRecord(start.name, trained_on=start.trained_on_with(data.trained_on)),
        compute=Compute(
            next(model.parameters()).device,
            config.eval_batch_size,
            config.workers,
            channels_last=config.channels_last,
        ),
    )
    write_page(page, splits, [side])
    return page


def open_tensorboard(run: Path) -> Any:
    """Return a TensorBoard writer, or None if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"))
