"""Runs are resumed with the same options, from checkpoints that are undamaged."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from finetune_runs import checkpoint, score_epochs, summary
from timm.task import resume_task_checkpoint

from rga_timm.cli import finetune
from rga_timm.losses import ReidLoss
from rga_timm.task import ReidTask
from rga_timm.training import loop
from rga_timm.training.checkpoints import read_checkpoint
from rga_timm.training.config import ConfigError

pytestmark = pytest.mark.faults


SCORES = (0.2, 0.3, 0.1)


@pytest.fixture(scope="module")
def finished(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, as it is before it removes the checkpoint of the first."""
    folder = tmp_path_factory.mktemp("finished")
    options = {"dataset": "market1501", "data_dir": str(people), "model": "test_rga_resnet"}
    options |= {"pretrained": False, "num_identities": 2, "num_instances": 2, "epochs": 2}
    options |= {"eval_every": 1, "workers": 0, "device": "cpu", "page": False, "opt": "sgd"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(options))
    with pytest.MonkeyPatch.context() as patch:
        score_epochs(patch, *SCORES)
        patch.setattr(loop, "remove_old_checkpoints", lambda run: None)
        return finetune.main(
            ["--config", str(folder / "recipe.yaml"), "--output", str(folder / "run")]
        )


@pytest.fixture(autouse=True)
def scored(monkeypatch: pytest.MonkeyPatch) -> None:
    score_epochs(monkeypatch, *SCORES)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def resume(run: Path, *more: str) -> Path:
    return finetune.main(["--resume", str(run), *more])


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def cut_after_a_line(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 2]))


def flip(file: Path) -> None:
    """Change one bit of a weight."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


# Options.


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--model", "resnet18", "--model is test_rga_resnet, and cannot become resnet18"),
        ("--dataset", "viper", "--dataset is ['market1501'], and cannot become ['viper']"),
        ("--opt", "adam", "--opt is sgd, and cannot become adam"),
        ("--lr", "0.1", "--lr is 0.0008, and cannot become 0.1"),
        ("--seed", "7", "--seed is 0, and cannot become 7"),
        ("--num-identities", "3", "--num-identities is 2, and cannot become 3"),
        ("--img-size", "96 48", "--img-size is None, and cannot become (96, 48)"),
        ("--model-kwargs", "relation=s", "--model-kwargs is {}, and cannot become"),
        ("--ema-decay", "0.9", "--ema-decay is 0.0, and cannot become 0.9"),
    ],
)
def test_a_run_is_not_resumed_as_another_and_stays_as_it_was(
    option: str, value: str, text: str, run: Path
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as refused:
        resume(run, "--epochs", "3", option, *value.split())
    (message,) = str(refused.value).splitlines()
    assert text in message
    assert "These may change: --epochs, " in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_options_that_change_no_result_may_change(run: Path) -> None:
    resume(run, "--epochs", "3", "--eval-batch-size", "7", "--channels-last", "--eval-every", "2")
    assert len(summary(run)) == 3
    assert yaml.safe_load((run / "args.yaml").read_text())["eval_batch_size"] == 7


def test_a_resumed_run_stays_in_its_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        resume(run, "--output", str(tmp_path / "other"))
    assert "no other --output" in capsys.readouterr().err


def test_options_of_a_failed_resume_are_not_recorded(run: Path) -> None:
    before = (run / "args.yaml").read_bytes()
    for name in ("last", "previous", "model_best"):
        empty(run / f"{name}.pth.tar")
    with pytest.raises(SystemExit, match="is damaged"):
        resume(run, "--epochs", "3")
    assert (run / "args.yaml").read_bytes() == before


# Damaged files.


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_from_a_damaged_checkpoint_a_run_falls_back_to_the_one_before(
    damage: Callable[[Path], None], run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = summary(run), checkpoint(run)
    (run / "model_best.pth.tar").unlink()
    damage(run / "last.pth.tar")
    with caplog.at_level(logging.WARNING):
        resume(run)
    assert f"{run / 'last.pth.tar'} is damaged (" in caplog.text
    assert f"Goes on after epoch 1, from {run / 'previous.pth.tar'}" in caplog.text
    assert summary(run) == whole[0]
    for key, value in checkpoint(run)["state_dict"].items():
        torch.testing.assert_close(value, whole[1]["state_dict"][key], rtol=0, atol=0)


def test_every_bit_of_the_weights_is_checked(run: Path) -> None:
    file = run / "last.pth.tar"
    flip(file)
    torch.load(file, weights_only=True)  # which does not check them
    with pytest.raises(ConfigError, match=r"last\.pth\.tar is damaged \(BadZipFile: bad checksum"):
        read_checkpoint(file)


def test_damage_to_one_checkpoint_is_not_damage_to_another(run: Path) -> None:
    files = [run / f"{name}.pth.tar" for name in ("last", "previous", "model_best")]
    assert len({file.stat().st_ino for file in files}) == 3
    assert [file.stat().st_nlink for file in files] == [1, 1, 1]


def test_a_damaged_best_is_restored_from_its_copy(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = (run / "model_best.pth.tar").read_bytes()
    flip(run / "model_best.pth.tar")
    with caplog.at_level(logging.WARNING):
        resume(run)
    assert f"{run / 'model_best.pth.tar'} is damaged (" in caplog.text
    assert (run / "model_best.pth.tar").read_bytes() == best == (run / "last.pth.tar").read_bytes()


def test_a_lost_best_is_said_and_the_next_best_exported(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resume(run, "--epochs", "3")  # the third is worse: the best is only in its own file
    flip(run / "model_best.pth.tar")
    with caplog.at_level(logging.WARNING):
        resume(run)
    text = (
        "no good checkpoint of the best epoch, 2 (mAP 30.0%): the best is now epoch 3 (mAP 10.0%)"
    )
    assert text in caplog.text
    exported = json.loads((run / "model" / "config.json").read_text())["reid"]
    assert exported["metrics"]["mAP"] == 0.1
    assert exported["metrics"] == json.loads((run / "report.json").read_text())["metrics"]


def test_with_all_checkpoints_damaged_a_run_is_not_begun_anew_without_a_word(run: Path) -> None:
    names = ("last.pth.tar", "previous.pth.tar", "model_best.pth.tar")
    for name in names:
        cut(run / name)
    before = (run / "summary.csv").read_bytes()
    with pytest.raises(SystemExit) as refused:
        resume(run)
    (message,) = str(refused.value).splitlines()
    assert all(f"{run / name} is damaged" in message for name in names)
    assert (run / "summary.csv").read_bytes() == before


def test_a_best_that_is_damaged_before_the_export_is_not_exported(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = (run / "model" / "model.safetensors").read_bytes()
    monkeypatch.setattr(loop, "open_tensorboard", lambda run: flip(run / "model_best.pth.tar"))
    with pytest.raises(SystemExit, match=r"model_best\.pth\.tar is damaged"):
        resume(run)
    assert (run / "model" / "model.safetensors").read_bytes() == exported


@pytest.mark.parametrize(
    ("name", "damage", "text"),
    [
        ("data.json", cut, "data.json is damaged ("),
        ("data.json", empty, "data.json is damaged ("),
        ("args.yaml", empty, "args.yaml is empty or cut off"),
        ("args.yaml", cut_after_a_line, "args.yaml is empty or cut off"),
        ("args.yaml", Path.unlink, "args.yaml, so no run to resume"),
    ],
)
def test_damaged_records_of_a_run_are_named(
    name: str,
    damage: Callable[[Path], None],
    text: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(run / name)
    with pytest.raises(SystemExit) as refused:
        resume(run)
    message = f"{refused.value}{capsys.readouterr().err}"
    assert f"{run / name}"[-len(name) - 4 :] in message
    assert text in message


def test_a_row_that_is_cut_off_is_done_again(run: Path) -> None:
    rows = summary(run)
    with (run / "summary.csv").open("a") as file:
        file.write("2,1.7")
    resume(run)
    assert summary(run) == rows


# Runs of timm's saver.


def as_timm_saved(run: Path) -> None:
    """Make a run what earlier versions left: without reports in its checkpoints."""
    for file in run.glob("*.pth.tar"):
        state = torch.load(file, weights_only=True)
        state.pop("report", None)
        torch.save(state, file)


@pytest.mark.parametrize("name", ["tmp", "recovery-1-0", "checkpoint-1", "model_best"])
def test_a_run_of_an_earlier_version_is_resumed_from_whatever_it_left(name: str, run: Path) -> None:
    as_timm_saved(run)
    exported = (run / "model" / "model.safetensors").read_bytes()
    shutil.copy(run / "last.pth.tar", run / f".{name}")
    for file in run.glob("*.pth.tar"):
        file.unlink()
    (run / f".{name}").rename(run / f"{name}.pth.tar")
    resume(run)
    assert (run / "model" / "model.safetensors").read_bytes() == exported
    assert checkpoint(run)["epoch"] == 1
    assert sorted(path.name for path in run.glob("*.pth.tar")) == [
        *(["checkpoint-1.pth.tar"] if name == "checkpoint-1" else []),
        "last.pth.tar", "model_best.pth.tar",
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["of another epoch", "cut off", "missing"])
def test_a_report_that_is_not_of_the_best_is_made_again(
    what: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_epochs(monkeypatch, 0.3)
    as_timm_saved(run)
    file = run / "report.json"
    report = json.loads(file.read_text())
    if what == "of another epoch":
        file.write_text(json.dumps(report | {"metrics": report["metrics"] | {"mAP": 0.5}}))
    else:
        file.write_text(file.read_text()[:50]) if what == "cut off" else file.unlink()
    resume(run)
    again = json.loads(file.read_text())
    assert again["metrics"] == report["metrics"]
    exported = json.loads((run / "model" / "config.json").read_text())["reid"]
    assert exported["metrics"] == report["metrics"]


def test_timm_reads_the_checkpoints(run: Path) -> None:
    from timm import create_model
    from timm.models import load_state_dict, resume_checkpoint

    model: Any = create_model("test_rga_resnet", num_classes=6)
    for name in ("last.pth.tar", "model_best.pth.tar"):
        task = ReidTask(model, ReidLoss())
        assert resume_task_checkpoint(task, run / name) == 2
        assert resume_checkpoint(model, str(run / name)) == 2
        assert load_state_dict(str(run / name)).keys() == model.state_dict().keys()
