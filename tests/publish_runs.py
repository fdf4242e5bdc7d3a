"""A short training run, and rga-timm publish on it."""

from pathlib import Path

import pytest

from rga_timm.cli import finetune, publish

NAME = "test_rga_resnet.market1501"


def train_briefly(people: Path, output: Path) -> Path:
    finetune.main(
        [
            "--dataset", "market1501", "--data-dir", str(people), "--model", "test_rga_resnet",
            "--no-pretrained", "--num-identities", "2", "--num-instances", "2", "--epochs", "2",
            "--eval-every", "1", "--workers", "0", "--device", "cpu", "--img-size", "64", "32",
            "--no-page", "--output", str(output),
        ]
    )  # fmt: skip
    return output


def pack(run, weights, *options):
    return publish.main([str(run), "--weights", str(weights), "--workers", "0", *options])


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        publish.main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err
