from __future__ import annotations

import json
from pathlib import Path

import benchmark
import pytest
import timm
import torch


def test_measures_the_three_forms_and_their_ratios(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "cost.json"
    arguments = ["--model", "test_rga_resnet", "--img-size", "64", "32", "--batch-size", "2"]
    benchmark.main([*arguments, "--rounds", "1", "--device", "cpu", "--output", str(output)])
    plain, rga, published = json.loads(output.read_text())["rows"]
    assert [row["form"] for row in (plain, rga, published)] == ["plain", "rga", "published"]
    assert rga["parameters"] == published["parameters"] > plain["parameters"]
    assert plain["gflops"] < rga["gflops"] < published["gflops"]
    assert plain["training_peak_mib"] < rga["training_peak_mib"] < published["training_peak_mib"]
    # In a single round the median of the ratios is the ratio of the medians.
    assert rga["training_ms_ratio"] == pytest.approx(rga["training_ms"] / plain["training_ms"])
    assert capsys.readouterr().out.count("| 64x32 |") == 3


def test_peak_memory_counts_what_a_step_holds_at_once() -> None:
    model = torch.nn.Linear(1, 1)
    images = torch.zeros(256, 1024)  # 1 MiB

    def step() -> None:
        a = images + 1
        b = a + 1
        del a
        c = b + 1
        del b, c

    resident = images.nbytes + sum(p.nbytes for p in model.parameters())
    expected = resident + 2 * images.nbytes
    # The numbers that are added are tensors of some bytes.
    assert benchmark.peak_memory(step, model, images) == pytest.approx(expected, abs=100)


def test_flops_of_the_paper_model_are_those_of_the_factorised_form() -> None:
    # 8.1 GFLOPs of ResNet-50 with the last stride removed, 10.1 with RGA-SC, at 256x128: counted
    # without computing anything, on the meta device.
    image = torch.empty(1, 3, 256, 128, device="meta")
    gflops = {
        relation: benchmark.count_flops(
            timm.create_model("rga_resnet50", relation=relation, device="meta"), image
        )
        / 1e9
        for relation in ("none", "sc")
    }
    assert gflops["none"] == pytest.approx(8.1, abs=0.05)
    assert gflops["sc"] <= 10.2
