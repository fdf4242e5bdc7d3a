"""What finetune.py keeps of a run, and how it finds it again."""

from __future__ import annotations

import argparse
import csv
import logging
from pathlib import Path
from typing import Any

import torch
from timm import utils
from timm.task import load_task_ema_checkpoint, resume_task_checkpoint

from rga_timm.evaluation import Report
from rga_timm.task import ReidTask

_logger = logging.getLogger("finetune")


def resume(
    args: argparse.Namespace,
    task: ReidTask,
    optimizer: torch.optim.Optimizer,
    scaler: utils.NativeScaler | None,
    run: Path,
) -> tuple[int, tuple[float, int] | None]:
    """Restore the newest checkpoint of a run.

    Returns:
        The next epoch, and (mAP, epoch) of the best so far.
    """
    newest, epoch = None, -1
    for path in [*run.glob("last.pth.tar"), *run.glob("recovery-*.pth.tar")]:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"]
        if found > epoch:
            newest, epoch = path, found
    if newest is None:
        _logger.info("%s holds no checkpoint yet: its first epoch is begun again.", run)
    else:
        resume_task_checkpoint(task, newest, optimizer, scaler, log_info=utils.is_primary(args))
        if task.has_ema():
            load_task_ema_checkpoint(task, newest)
    summary = run / "summary.csv"
    if not utils.is_primary(args) or not summary.exists():
        return epoch + 1, None
    with summary.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= epoch]
    # Without the rows of epochs that are done again.
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
    run: Path,
    board: Any,
    saver: utils.CheckpointSaver,
    epoch: int,
    losses: dict[str, float],
    lr: float,
    report: Report | None,
) -> None:
    """Log an epoch, and make it one to resume from."""
    scores = dict.fromkeys(("mAP", "mAP_trapezoid", "mINP", "rank1"), "")
    if report:
        scores = {name: report.metrics[name] for name in ("mAP", "mAP_trapezoid", "mINP")}
        scores["rank1"] = report.metrics["cmc"][0]
    text = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
    if report:
        text += f", mAP {scores['mAP']:.1%}, rank-1 {scores['rank1']:.1%}"
    _logger.info("Epoch %d: %s, lr %.2e", epoch + 1, text, lr)
    utils.update_summary(epoch, losses, scores, str(run / "summary.csv"), lr=lr,
                         write_header=not (run / "summary.csv").exists())  # fmt: skip
    if board:
        for name, value in (losses | {k: v for k, v in scores.items() if v != ""}).items():
            board.add_scalar(name, value, epoch + 1)
        board.add_scalar("lr", lr, epoch + 1)
    # Last, so that an interruption before it only means doing the epoch again.
    if report:
        saver.save_checkpoint(epoch, report.metrics["mAP"])
        if saver.best_epoch == epoch:
            report.save(run / "report.json")
    else:
        saver.save_recovery(epoch)


def open_tensorboard(run: Path) -> Any:
    """A TensorBoard writer where it is installed, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"))
