from __future__ import annotations

import logging

import pytest
import timm
import torch
import yaml

from rga_timm.cli import finetune
from rga_timm.training import precision


def choose(monkeypatch: pytest.MonkeyPatch, times: dict[str, float]) -> str | None:
    def take_turns(steps, rounds, device):
        for step in steps.values():
            step()
        return {name: (times[name], 1.0) for name in steps}

    monkeypatch.setattr(precision, "take_turns", take_turns)
    model = timm.create_model("test_rga_resnet", num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = precision.fastest_amp_dtype(model, 4, (64, 32), torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    return found


def test_the_faster_precision_is_chosen(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    assert choose(monkeypatch, {"float32": 20.0, "bfloat16": 10.0}) == "bfloat16"
    assert "float32 200.0 images/s, bfloat16 400.0 images/s; training in bfloat16" in caplog.text
    assert choose(monkeypatch, {"float32": 10.0, "bfloat16": 20.0}) is None


def test_a_run_records_what_auto_was(options, monkeypatch):
    from rga_timm.training import loop

    monkeypatch.setattr(loop, "fastest_amp_dtype", lambda *_, **__: "bfloat16")
    run = finetune.main([*options, "--amp-dtype", "auto", "--epochs", "1"])
    assert yaml.safe_load((run / "args.yaml").read_text())["amp_dtype"] == "bfloat16"


def test_auto_trains(options):
    assert finetune.main([*options, "--amp-dtype", "auto", "--epochs", "1"]).is_dir()
