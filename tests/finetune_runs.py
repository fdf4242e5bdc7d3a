"""What a fine-tuning run left."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rga_timm.data.text_file import write_text
from rga_timm.training import loop


def summary(run: Path) -> list[dict[str, str]]:
    with (run / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / f"{name}.pth.tar", weights_only=True)


def assert_equal_runs(a: Path, b: Path) -> None:
    for part in ("state_dict", "state_dict_ema"):
        first, second = checkpoint(a).get(part, {}), checkpoint(b).get(part, {})
        assert first.keys() == second.keys()
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=0, atol=0)
    for key, value in weights(a).items():
        torch.testing.assert_close(weights(b)[key], value, rtol=0, atol=0)
    assert summary(a) == summary(b)


def score_epochs(monkeypatch: pytest.MonkeyPatch, *mean_aps: float) -> None:
    """Decide on the mAP of each epoch, and so on the best; leave out the curves, which take long.

    Without a training before it, a test counts as one of the first epoch.
    """
    train_epoch, evaluate_dataset = loop.train_epoch, loop.evaluate_dataset
    epoch = 0

    def train(*args: Any) -> Any:
        nonlocal epoch
        epoch = args[-1]
        return train_epoch(*args)

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        report = evaluate_dataset(*args, **kwargs)
        return replace(report, metrics={**report.metrics, "mAP": mean_aps[epoch]})

    monkeypatch.setattr(loop, "train_epoch", train)
    monkeypatch.setattr(loop, "evaluate_dataset", evaluate)
    monkeypatch.setattr(loop, "draw_curves", lambda run: write_text(run / "curves.png", ""))


def train_in_two_processes(options: list[str], run: Path) -> Path:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program = ["--nproc-per-node=2", "-m", "rga_timm", "finetune"]
    subprocess.run(
        [*torchrun, *program, *options, "--output", str(run)],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return run
