"""Runs that are killed, at every moment at which they change a file, and resumed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from finetune_runs import checkpoint, score_epochs, summary, weights

from rga_timm.cli import finetune

pytestmark = pytest.mark.faults

# What gives a file its name or takes it away: between two of these only temporary files change.
COMMITS = ("os.rename", "os.remove", "os.link")

FOREVER = ("--epochs", "100000")

_watchers: dict[Path, Callable[[str], None]] = {}


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event in COMMITS:
        path = Path(os.fsdecode(args[0] if event == "os.remove" else args[1]))
        for folder, watcher in list(_watchers.items()):
            if folder in path.parents and path.suffix != ".tmp":
                watcher(path.relative_to(folder).as_posix())


sys.addaudithook(_watch)  # for good: Python does not take one back


@contextmanager
def copies_before_commits(folder: Path, to: Path) -> Iterator[list[tuple[str, Path]]]:
    """Copy a folder before each commit in it: that is what a kill at that moment leaves."""
    copies: list[tuple[str, Path]] = []

    def copy(name: str) -> None:
        copies.append((name, Path(shutil.copytree(folder, to / f"killed-{len(copies)}"))))

    _watchers[folder] = copy
    try:
        yield copies
    finally:
        del _watchers[folder]


def assert_same_result(run: Path, straight: Path) -> None:
    """Weights, best, report, export, table and names of files are as without a kill."""
    for file in ("report.json", "model/config.json", "summary.csv"):
        assert (run / file).read_text() == (straight / file).read_text()
    for file in ("last.pth.tar", "model_best.pth.tar", "model/model.safetensors"):
        assert (run / file).read_bytes() == (straight / file).read_bytes(), file
    names = [sorted(path.name for path in one.iterdir()) for one in (run, straight)]
    assert names[0] == names[1]
    assert [path.name for path in (run / "model").iterdir() if path.name.startswith(".")] == []


def test_a_run_killed_before_any_commit_is_resumed_to_the_same_result(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_epochs(monkeypatch, 0.2, 0.3)
    options += ["--epochs", "2", "--opt", "sgd"]
    straight = tmp_path / "straight"
    with copies_before_commits(straight, tmp_path) as killed:
        finetune.main([*options, "--output", str(straight)])
    best = ["last.pth.tar", "model_best.pth.tar", "report.json"]
    export = ["model/.unfinished/config.json", "model/model.safetensors", "model/config.json"]
    assert [name for name, _ in killed] == [
        "data.json", "args.yaml", "summary.csv", *best, "summary.csv", "previous.pth.tar", *best,
        *export, "previous.pth.tar", "curves.png",
    ]  # fmt: skip
    for _, run in killed:
        begun = (run / "args.yaml").exists()
        finetune.main(["--resume", str(run)] if begun else [*options, "--output", str(run)])
        assert_same_result(run, straight)


def test_the_best_is_kept_by_a_run_killed_in_a_later_epoch_that_is_worse_or_not_tested(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_epochs(monkeypatch, 0, 0.3, 0, 0.2)
    options += ["--epochs", "4", "--eval-every", "2", "--opt", "sgd"]
    straight = tmp_path / "straight"
    with copies_before_commits(straight, tmp_path) as killed:
        finetune.main([*options, "--output", str(straight)])
    assert checkpoint(straight, "model_best")["epoch"] == 1
    # Before the last checkpoints of both epochs, when only the previous one is there; and after.
    lasts = [run for name, run in killed if name == "last.pth.tar"][2:]
    assert [(run / "last.pth.tar").exists() for run in lasts] == [False, False]
    for run in (*lasts, killed[-1][1]):
        finetune.main(["--resume", str(run)])
        assert_same_result(run, straight)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_signal_in_training_leaves_a_run_that_is_resumed(
    name: str, options: list[str], tmp_path: Path
) -> None:
    run, number = tmp_path / "run", getattr(signal, name)
    # A fork, which has nothing to import.
    process = multiprocessing.get_context("fork").Process(
        target=finetune.main, args=([*options, *FOREVER],)
    )
    process.start()
    wait_for(run / "previous.pth.tar")
    os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == (-number if name == "SIGKILL" else 130)
    assert_goes_on(run)


def test_a_process_that_dies_ends_the_others_and_the_run_is_resumed(
    options: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib\n"
        "if 'RANK' in os.environ:\n"
        "    file = pathlib.Path(__file__).with_name('rank-' + os.environ['RANK'])\n"
        "    file.write_text(str(os.getpid()))\n"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    process = subprocess.Popen(
        [*torchrun, "--nproc-per-node=2", "-m", "rga_timm", "finetune", *options, *FOREVER],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(run / "last.pth.tar")
    first, second = (int((tmp_path / f"rank-{rank}").read_text()) for rank in range(2))
    os.kill(second, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0, errors
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert_goes_on(run)


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert file.exists()


def assert_goes_on(run: Path) -> None:
    done = len(summary(run))
    finetune.main(["--resume", str(run), "--epochs", str(done + 1)])
    assert [int(row["epoch"]) for row in summary(run)] == list(range(done + 1))
    assert all(value.isfinite().all() for value in weights(run).values())
    report = json.loads((run / "report.json").read_text())
    assert report["metrics"]["mAP"] == max(float(row["eval_mAP"]) for row in summary(run))
