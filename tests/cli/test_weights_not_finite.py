"""Every command says so where weights are NaN, before it works with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from checkpoints import make_records

from rga_timm.cli import embed, evaluate, export, finetune, publish, report
from rga_timm.hub import save_pretrained

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = timm.create_model("test_rga_resnet", num_classes=0)
    with torch.no_grad():
        model.neck.weight[:5] = torch.nan
    folder = tmp_path_factory.mktemp("spoiled") / "model"
    return save_pretrained(model, folder, reid=make_records("test_rga_resnet.x"))


COMMANDS: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "evaluate": (evaluate.main, ["MODEL", "DATA", "--workers", "0", "--device", "cpu"]),
    "report": (report.main, ["MODEL", "DATA", "--workers", "0", "--device", "cpu"]),
    "embed": (embed.main, ["MODEL", "DATA", "--output", "e", "--workers", "0", "--device", "cpu"]),
    "export": (export.main, ["MODEL", "e.onnx"]),
    "publish": (publish.main, ["MODEL", "DATA", "--weights", "w", "--workers", "0"]),
    "finetune": (
        finetune.main,
        ["--model", "MODEL", "DATA", "--output", "run", "--num-identities", "2", "--num-instances",
         "2", "--workers", "0", "--device", "cpu", "--epochs", "1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_weights_that_are_not_finite(
    command: str, spoiled: Path, people: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "missing_packages", list)  # it is not about these
    named = {
        "MODEL": [str(spoiled)],
        "DATA": ["--dataset", "market1501", "--data-dir", str(people)],
    }
    main, arguments = COMMANDS[command]
    with pytest.raises(SystemExit) as ended:
        main([part for one in arguments for part in named.get(one, [one])])
    message = f"{capsys.readouterr().err}{ended.value}"
    assert "5 values are NaN or infinite, in 1 (neck.weight)" in message
    for made in ("e", "e.onnx", "w", "report.html", "run/last.pth.tar"):
        assert not Path(made).exists()
