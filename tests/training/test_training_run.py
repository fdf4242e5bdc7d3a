from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from finetune_runs import assert_equal_runs, checkpoint, summary, train_in_two_processes, weights
from timm.utils import random_seed

from rga_timm.cli import finetune
from rga_timm.cli.finetune import parse_args
from rga_timm.training import loop


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_run_stopped_in_any_epoch_and_resumed_is_the_run_that_was_not(
    stop: int, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options += ["--eval-every", "2", "--ema-decay", "0.9", "--drop-rate", "0.2"]
    options += ["--grad-accum-steps", "2", "--warmup-epochs", "1", "--layer-decay", "0.7"]
    straight = finetune.main([*options, "--output", str(tmp_path / "straight")])
    train_epoch = loop.train_epoch

    def interrupted(*args: Any) -> dict[str, float]:
        losses = train_epoch(*args)
        if args[-1] == stop:
            raise KeyboardInterrupt
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_epoch", interrupted)
        with pytest.raises(SystemExit) as stopped:
            finetune.main([*options, "--output", str(tmp_path / "stopped")])
    assert stopped.value.code == 130
    resumed = finetune.main(["--resume", str(tmp_path / "stopped")])
    assert_equal_runs(straight, resumed)


def test_ctrl_c_leaves_a_run_that_can_be_resumed(options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rga_timm", "finetune", *options]
    process = subprocess.Popen(
        [*command, "--epochs", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    run = tmp_path / "run"
    while process.poll() is None and not (run / "last.pth.tar").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f"--resume {run}" in output
    done = len(summary(run))
    finetune.main(["--resume", str(run), "--epochs", str(done + 1)])
    assert [int(row["epoch"]) for row in summary(run)] == list(range(done + 1))


def test_the_exported_model_is_the_best_one_bit_for_bit(options: list[str]) -> None:
    run = finetune.main(options)
    scores = [float(row["eval_mAP"]) for row in summary(run)]
    best = checkpoint(run, "model_best")
    assert best["epoch"] == scores.index(max(scores))
    model = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True)
    assert model.num_classes == 6
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, best["state_dict"][key], rtol=0, atol=0)


def test_two_processes_train_as_one_with_the_same_global_batch(
    options: list[str], tmp_path: Path
) -> None:
    options += ["--freeze-bn", "--epochs", "2", "--opt", "sgd", "--lr", "0.05"]
    one = finetune.main([*options, "--output", str(tmp_path / "one")])
    two = train_in_two_processes(options, tmp_path / "two")
    for a, b in zip(summary(one), summary(two), strict=True):
        for name in ("train_cross_entropy", "train_triplet", "eval_mAP"):
            assert float(b[name]) == pytest.approx(float(a[name]), rel=1e-4), name
    # Both moved, and to the same place.
    assert summary(one)[0]["train_triplet"] != summary(one)[1]["train_triplet"]
    for key, value in checkpoint(one)["state_dict"].items():
        torch.testing.assert_close(
            checkpoint(two)["state_dict"][key], value, rtol=1e-3, atol=1e-5, msg=key
        )


@pytest.mark.parametrize(
    "extra",
    [
        ["--amp-dtype", "bfloat16", "--channels-last", "--clip-grad", "1"],
        ["--amp-dtype", "float16", "--clip-grad", "1", "--grad-accum-steps", "2"],
        ["--opt", "lamb", "--sched", "cosine", "--sched-on-updates", "--ema-decay", "0.99"],
        ["--model", "test_resnet", "--img-size", "64", "32", "--epoch-images", "all"],
        ["--model-kwargs", "relation=parallel", "--img-size", "96", "48", "--triplet-weight", "0"],
    ],
    ids=["bf16", "fp16", "updates", "plain timm model", "other relation and size"],
)
def test_options_train_to_finite_losses_and_an_exported_model(
    extra: list[str], options: list[str]
) -> None:
    run = finetune.main([*options, "--epochs", "2", *extra])
    losses = [float(row["train_cross_entropy"]) for row in summary(run)]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)
    assert all(value.isfinite().all() for value in weights(run).values())


def test_a_frozen_backbone_stays_as_it_was_until_its_epoch(options: list[str]) -> None:
    options += ["--freeze-backbone-epochs", "1"]
    frozen = finetune.main([*options, "--epochs", "1"])
    random_seed(0, 0)  # as the run did before it made its model
    start = timm.create_model("test_rga_resnet", num_classes=6).state_dict()
    after = checkpoint(frozen)["state_dict"]
    moved = {key for key in after if not torch.equal(after[key], start[key])}
    assert not [key for key in moved if "rga" not in key and not key.startswith(("neck.", "fc."))]
    assert "fc.weight" in moved
    thawed = finetune.main(["--resume", str(frozen), "--epochs", "2"])
    assert not torch.equal(checkpoint(thawed)["state_dict"]["conv1.weight"], start["conv1.weight"])


def test_learning_rates_follow_the_papers_code() -> None:
    args = parse_args(["--dataset", "market1501"])
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=args.lr)
    scheduler = loop.create_schedule(args, optimizer, updates_per_epoch=47)
    for epoch in (0, 1, 10, 19, 20, 79, 80, 119, 120, 359, 360, 599):
        if epoch < 20:
            expected = 8e-6 + (8e-4 - 8e-6) * epoch / 20
        else:
            expected = 8e-4 * 0.5 ** sum(step <= epoch for step in range(80, 361, 40))
        lr = loop.schedule_epoch(scheduler, optimizer, args, epoch, 47)
        assert lr == pytest.approx(expected, rel=1e-6), epoch


def test_a_run_is_not_overwritten(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = finetune.main([*options, "--epochs", "1"])
    before = (run / "summary.csv").read_bytes()
    with pytest.raises(SystemExit):
        finetune.main([*options, "--epochs", "1"])
    assert "--resume" in capsys.readouterr().err
    assert (run / "summary.csv").read_bytes() == before


def test_weights_that_cannot_be_had_say_what_to_do(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SystemExit, match="--pretrained-path FILE"):
        finetune.main([*options, "--model", "rga_resnet18", "--pretrained"])


def test_a_run_that_was_moved_goes_on_where_it_lies(options: list[str], tmp_path: Path) -> None:
    run = finetune.main([*options, "--epochs", "1"])
    moved = run.rename(tmp_path / "moved")
    assert finetune.main(["--resume", str(moved), "--epochs", "2"]) == moved
    assert [row["epoch"] for row in summary(moved)] == ["0", "1"]
    assert not run.exists()


def test_exported_config_carries_no_paths_of_the_machine(
    options: list[str], people: Path, tmp_path: Path
) -> None:
    run = finetune.main([*options, "--epochs", "1"])
    config = (run / "model" / "config.json").read_text()
    assert str(people) not in config
    assert str(tmp_path) not in config


def test_missing_data_ends_with_what_is_missing(options: list[str]) -> None:
    with pytest.raises(SystemExit, match="nowhere"):
        finetune.main([*options, "--data-dir", "nowhere"])
