"""The checkpoints of a run: each is whole at any time, and checked before it is used.

They hold what those of timm's CheckpointSaver hold, and timm's functions read them. That saver
removes a file before it puts another in its place, so that a run killed in between cannot go on.
"""

import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm import utils
from timm.task import load_task_ema_checkpoint, resume_task_checkpoint

from rga_timm.data.text_file import whole_file, write_text
from rga_timm.evaluation import Report, load_reports
from rga_timm.evaluation.reports.report import format_json
from rga_timm.task import ReidTask
from rga_timm.training.config import ConfigError

LAST, PREVIOUS, BEST = "last.pth.tar", "previous.pth.tar", "model_best.pth.tar"
REPORT = "report.json"  # of the best
# Of runs that were begun with timm's saver; the last is a copy of the best.
_TEMPORARY_OF_TIMM = ("recovery*.pth.tar", "tmp.pth.tar")
_NAMES = (LAST, PREVIOUS, BEST, *_TEMPORARY_OF_TIMM, "checkpoint-*.pth.tar")


@dataclass(frozen=True)
class Checkpoint:
    """An undamaged checkpoint, without its tensors."""

    path: Path
    epoch: int
    metric: float | None = None  # mAP on the first test set, if it was evaluated
    report: str | None = None  # the text of its report.json


def read_checkpoint(path: Path) -> Checkpoint:
    """Check a file, and read what it says of itself.

    Raises:
        ConfigError: It is damaged, cannot be read, or is not a checkpoint of a run.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            if entry := archive.testzip():
                raise zipfile.BadZipFile(f"bad checksum of {entry}")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return Checkpoint(path, int(state["epoch"]), state.get("metric"), state.get("report"))
    except Exception as error:  # zipfile and pickle raise all kinds for damaged files
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{path} is damaged ({type(error).__name__}: {reason})") from error


def find_checkpoints(run: Path) -> tuple[list[Checkpoint], list[str]]:
    """Return a run's undamaged checkpoints, the newest first, and a sentence on each other one."""
    good, damaged = [], []
    for path in (path for name in _NAMES for path in sorted(run.glob(name))):
        try:
            good.append(read_checkpoint(path))
        except ConfigError as error:
            damaged.append(str(error))
    return sorted(good, key=lambda one: one.epoch, reverse=True), damaged


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint; not a link, as damage to one file would be damage to both."""
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)


def make_best(source: Path, report: str | None) -> None:
    """Make a checkpoint of a run its best, with the text of its report."""
    if source.name != BEST:
        copy_checkpoint(source, source.with_name(BEST))
    if report is not None:
        write_text(source.with_name(REPORT), report)


def read_report_of(best: Checkpoint) -> list[Report] | None:
    """Read the report beside the best checkpoint; None if it is of another one."""
    try:
        reports = load_reports(best.path.with_name(REPORT))
    except (OSError, ValueError):
        return None
    return reports if reports[0].metrics["mAP"] == best.metric else None


def load_weights(task: ReidTask, path: Path) -> None:
    """Load a checkpoint's weights into the model that is evaluated."""
    if task.has_ema():
        load_task_ema_checkpoint(task, path)
    else:
        resume_task_checkpoint(task, path, log_info=False)


def remove_old_checkpoints(run: Path) -> None:
    """Remove what a finished run does not need: all but the last and the best."""
    for name in (PREVIOUS, *_TEMPORARY_OF_TIMM):
        for path in run.glob(name):
            path.unlink()


class CheckpointSaver:
    """Saves a run's last two checkpoints and its best.

    A run that is killed at any moment can be resumed to the same result: a checkpoint holds its
    report, and :func:`rga_timm.training.resume.resume` does what was left to do after the last one.

    Args:
        run: The run's folder.
        arch: Name of the model's class.
        best: mAP of the best checkpoint so far.
    """

    def __init__(
        self, run: Path, arch: str, task: ReidTask, optimizer: torch.optim.Optimizer,
        scaler: utils.NativeScaler | None, best: float | None,
    ) -> None:  # fmt: skip
        self.run, self.arch = run, arch
        self.task, self.optimizer, self.scaler = task, optimizer, scaler
        self.best = best

    def save(self, epoch: int, reports: Sequence[Report]) -> None:
        """Save the last checkpoint, and the best if the first report has the highest mAP so far.

        The one before is kept, to go on from if the last is damaged.
        """
        state = self._state(epoch)
        text = None
        if reports:
            text = format_json(reports)
            state |= {"metric": reports[0].metrics["mAP"], "report": text}
        last = self.run / LAST
        with whole_file(last) as temporary:
            with temporary.open("wb") as file:
                torch.save(state, file)
            if last.exists():
                os.replace(last, self.run / PREVIOUS)
        if reports and (self.best is None or state["metric"] > self.best):
            make_best(last, text)
            self.best = state["metric"]

    def _state(self, epoch: int) -> dict[str, Any]:
        state = {
            "epoch": epoch,
            "arch": self.arch,
            "optimizer": self.optimizer.state_dict(),
            "version": 2,  # of timm's: `epoch` is done
            **self.task.get_checkpoint_state(),
            **self.task.get_checkpoint_state(ema=True),
        }
        if self.scaler is not None:
            state[self.scaler.state_dict_key] = self.scaler.state_dict()
        return state
