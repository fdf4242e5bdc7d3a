"""Folders in the place of a model's name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm

from rga_timm.cli import embed, evaluate
from rga_timm.cli import export as export_onnx
from rga_timm.hub import save_pretrained
from rga_timm.hub.model_source import public_name, resolve_model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_pretrained(timm.create_model("test_resnet", num_classes=4), tmp_path / "run" / "model")
    return tmp_path / "run"


def test_a_folder_is_a_model_and_a_runs_folder_the_model_in_it(run: Path) -> None:
    assert resolve_model(str(run / "model")) == f"local-dir:{run / 'model'}"
    assert resolve_model(str(run)) == resolve_model(f"{run}/") == f"local-dir:{run / 'model'}"


def test_names_and_sources_stay_as_they_are(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    os.rename("model", "resnet18")
    for name in ("resnet18", "resnet18.a1_in1k", "hf-hub:a/b@c", "local-dir:resnet18", "nothing"):
        assert resolve_model(name) == name
    assert resolve_model("./resnet18") == "local-dir:resnet18"


@pytest.mark.parametrize("name", ["nowhere/resnet18", "timm/resnet18.a1_in1k", "ftp:resnet18"])
def test_what_is_neither_is_not_taken_for_a_model_of_its_last_part(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        resolve_model(name)


SCRIPTS: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "evaluate": (evaluate.main, []),
    "embed": (embed.main, ["--images", ".", "--output", "embeddings"]),
    "export_onnx": (export_onnx.main, ["model.onnx"]),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", "there is no model in"), ("model.safetensors", "there are no weights in")],
)
def test_every_script_says_what_a_folder_lacks(
    script: str,
    missing: str,
    message: str,
    run: Path,
    no_model_is_made: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export_onnx, "missing_packages", list)  # it is not about these
    (run / "model" / missing).unlink()
    main, arguments = SCRIPTS[script]
    with pytest.raises(SystemExit):
        main([str(run / "model"), *arguments])
    assert message in capsys.readouterr().err


def test_a_runs_folder_is_evaluated(run: Path, people: Path) -> None:
    data = ["--dataset", "market1501", "--data-dir", str(people), "--img-size", "32", "16"]
    data += ["--workers", "0", "--device", "cpu"]
    (report,) = evaluate.main([str(run), *data])
    (same,) = evaluate.main([f"local-dir:{run / 'model'}", *data])
    assert report.model == same.model == f"local-dir:{run / 'model'}"
    assert report.metrics == same.metrics


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("rga_resnet50.tv_in1k", "rga_resnet50.tv_in1k"),
        ("hf-hub:someone/net", "hf-hub:someone/net"),
        ("local-dir:/home/someone/output/first/model", "first"),
        ("local-dir:/home/someone/net", "net"),
    ],
)
def test_a_name_for_others_has_no_path(model: str, name: str) -> None:
    assert public_name(model) == name
