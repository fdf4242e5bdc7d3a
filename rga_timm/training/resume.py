"""Go on with a run: with the same options, from its newest undamaged checkpoint."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm import utils
from timm.task import load_task_ema_checkpoint, resume_task_checkpoint

from rga_timm.hub.model_source import resolve_model
from rga_timm.task import ReidTask
from rga_timm.training.checkpoints import (
    BEST,
    LAST,
    Checkpoint,
    copy_checkpoint,
    find_checkpoints,
    make_best,
)
from rga_timm.training.config import ConfigError, TrainConfig, read_options
from rga_timm.training.records import SUMMARY, read_rows, write_rows

# The length of a run, where files lie, how to compute, and what does not change the training.
MAY_CHANGE = (
    "epochs", "data_dir", "eval_data_dir", "unlabelled_data_dir", "pretrained_path",
    "workers", "cache", "cache_on_device", "device", "channels_last", "compile",
    "eval_every", "eval_initial", "eval_batch_size", "page",
)  # fmt: skip

_logger = logging.getLogger(__name__)


def option_names(fields: Sequence[str]) -> str:
    """Write fields of the config as options of the command line: `--lr, --opt`."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in fields)


def read_options_of_run(run: Path) -> dict[str, Any]:
    """Read a run's args.yaml.

    Raises:
        ConfigError: There is none, or it is damaged.
    """
    file = run / "args.yaml"
    if not file.is_file():
        raise ConfigError(f"there is no file {file}, so no run to resume")
    options = read_options(file)
    if "page" not in options:  # the last option that every version has written
        raise ConfigError(
            f"{file} is empty or cut off: write the missing options into it (NAME: VALUE), or "
            "begin a new run"
        )
    return options


def check_same_options(config: TrainConfig, run: Path) -> None:
    """Raise a ConfigError if a run is resumed with options that would make it another run."""
    before, now = read_options_of_run(run), config.to_dict()
    before["model"] = resolve_model(before.get("model", now["model"]))
    fixed = before.keys() & now.keys() - {*MAY_CHANGE, "output"}
    changed = [name for name in now if name in fixed and _differ(before[name], now[name])]
    if changed:
        texts = [f"{option_names([k])} is {before[k]}, and cannot become {now[k]}" for k in changed]
        raise ConfigError(
            f"--resume {run}: {'; '.join(texts)}. Begin a new run for that. These may change: "
            f"{option_names(MAY_CHANGE)}"
        )


def _differ(before: Any, now: Any) -> bool:
    # As JSON, in which a tuple and a list are the same.
    first, second = (json.dumps(one, sort_keys=True, default=str) for one in (before, now))
    return first != second


def resume(
    run: Path, task: ReidTask, optimizer: torch.optim.Optimizer,
    scaler: utils.NativeScaler | None, *, is_main: bool,
) -> tuple[int, float | None]:  # fmt: skip
    """Restore the newest checkpoint; return the next epoch, and the mAP of the best so far.

    The main process brings the files of the run to what they were after that epoch.

    Raises:
        ConfigError: All checkpoints are damaged, or the newest does not fit the run's options.
    """
    checkpoints, damaged = find_checkpoints(run)
    newest = checkpoints[0] if checkpoints else None
    if newest is None and damaged:
        what = "; ".join(damaged)
        raise ConfigError(f"{what}. Remove the damaged files to start again at the first epoch")
    for sentence in damaged if is_main else ():
        _logger.warning("%s: it is left out.", sentence)
    if newest is None:
        _logger.info("%s holds no checkpoint yet: it starts again at its first epoch.", run)
    else:
        _load(newest.path, task, optimizer, scaler, log_info=is_main)
        if damaged and is_main:
            _logger.warning("Goes on after epoch %d, from %s.", newest.epoch + 1, newest.path)
    if not is_main:
        return newest.epoch + 1 if newest else 0, None
    rows = _trim_summary(run / SUMMARY, newest.epoch if newest else -1)
    if newest is None:
        return 0, None
    if newest.path.name != LAST:
        copy_checkpoint(newest.path, run / LAST)
    return newest.epoch + 1, _restore_best(checkpoints, rows)


def _load(
    path: Path, task: ReidTask, optimizer: torch.optim.Optimizer,
    scaler: utils.NativeScaler | None, *, log_info: bool,
) -> None:  # fmt: skip
    try:
        resume_task_checkpoint(task, path, optimizer, scaler, log_info=log_info)
        if task.has_ema():
            load_task_ema_checkpoint(task, path)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} does not fit the options in args.yaml: {reason}") from error


def _restore_best(
    checkpoints: Sequence[Checkpoint], rows: Sequence[Mapping[str, str]]
) -> float | None:
    """Make the checkpoint of the highest mAP the best; compare with the rows of the summary."""
    tested = [one for one in checkpoints if one.metric is not None]
    # Of equal ones the earliest, as in a run that is not interrupted; of copies, its own file.
    best = max(tested, key=lambda c: (c.metric, -c.epoch, c.path.name == BEST), default=None)
    if best is not None:
        make_best(best.path, best.report)
    scored = [(float(row["eval_mAP"]), -int(row["epoch"])) for row in rows if row["eval_mAP"]]
    if scored and (best is None or best.epoch != -max(scored)[1]):
        lost, epoch = max(scored)
        now = f"epoch {best.epoch + 1} (mAP {best.metric:.1%})" if best else "the next one tested"
        text = "There is no good checkpoint of the best epoch, %d (mAP %.1f%%): the best is now %s."
        _logger.warning(text, 1 - epoch, 100 * lost, now)
    return best.metric if best else None


def _trim_summary(summary: Path, epoch: int) -> list[dict[str, Any]]:
    """Remove the epochs after this one, which are done again; return the rows that stay."""
    kept = [row for row in read_rows(summary) if int(row["epoch"]) <= epoch]
    if kept:
        write_rows(summary, kept)
    else:
        summary.unlink(missing_ok=True)
    return kept
