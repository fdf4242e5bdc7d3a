from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from benchmarks import attention as benchmark

from rga_timm.evaluation import Embedder, cost


class Tiny(torch.nn.Module):
    """The least that is embedded: the mean of each channel."""

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))

    def forward_head(self, x: torch.Tensor, pre_logits: bool) -> torch.Tensor:
        return x


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


def test_several_models_have_rows_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "test_rga_resnet", "rga_resnet18", "--img-size", "64", "32"]
    arguments += ["--forms", "plain", "rga", "--batch-size", "1", "--rounds", "1", "--no-train"]
    rows = benchmark.main([*arguments, "--device", "cpu"])
    models = ["test_rga_resnet", "test_rga_resnet", "rga_resnet18", "rga_resnet18"]
    assert [row["model"] for row in rows] == models
    assert rows[1]["parameters"] < rows[3]["parameters"]
    output = capsys.readouterr().out
    assert output.startswith("| model | input |")
    assert output.count("| rga_resnet18 | 64x32 |") == 2


def test_measures_the_runtimes_of_a_model_on_the_same_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "latency.json"
    arguments = ["--runtimes", "eager", "onnxruntime", "--model", "test_resnet"]
    arguments += ["--img-size", "64", "32", "--batch-size", "3", "--rounds", "1"]
    benchmark.main([*arguments, "--device", "cpu", "--output", str(output)])
    report = json.loads(output.read_text())
    eager, onnx = report["rows"]
    assert (eager["runtime"], onnx["runtime"]) == ("eager", "onnxruntime")
    assert eager["batch_size"] == onnx["batch_size"] == 3
    assert (eager["latency_ms_ratio"], eager["difference"]) == (1, 0)
    # Of one round, the ratio is that of the two times.
    ratio = onnx["latency_ms"] / eager["latency_ms"]
    assert onnx["latency_ms_ratio"] == pytest.approx(ratio)
    assert 0 < onnx["difference"] < 1e-5
    assert report["machine"]["onnxruntime"] == onnxruntime.__version__
    printed = capsys.readouterr().out
    assert "| ratio to eager |" in printed
    assert printed.count("| test_resnet | 64x32 | 3 |") == 2


def test_ratios_are_the_median_of_the_rounds_own_to_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([1, 2, 10, 80, 3, 9])  # a, b, a, b, a, b
    monkeypatch.setattr(cost, "timed", lambda *_: next(seconds))
    steps = {"a": time.time, "b": time.time}
    assert cost.take_turns(steps, 3, "cpu") == {"a": (3000, 1), "b": (9000, 3)}


def test_the_compiled_runtime_compiles_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without inductor, which needs a compiler and takes long.
    graphs: list[torch.fx.GraphModule] = []
    compile_ = torch.compile

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", lambda module: compile_(module, backend=backend))
    args = benchmark.get_parser().parse_args(["--runtimes", "eager", "compiled", "--device", "cpu"])
    for batch_size in range(1, 11):  # more than torch compiles of one function by default
        images = torch.randn(batch_size, 3, 8, 4)
        runs = benchmark.create_runs(args, Tiny(), images)
        torch.testing.assert_close(runs["compiled"](), runs["eager"]())
        assert len(graphs) == batch_size
    torch.testing.assert_close(runs["eager"]().norm(dim=1), torch.ones(10))


def test_onnxruntime_has_as_many_threads_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    options = []
    session = onnxruntime.InferenceSession

    def record(path: Path, given: onnxruntime.SessionOptions, **rest: object) -> object:
        options.append(given)
        return session(path, given, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    images = torch.randn(2, 3, 8, 4).to(memory_format=torch.channels_last)
    embedder = Embedder(Tiny())
    torch.testing.assert_close(benchmark.in_onnxruntime(embedder, images)(), embedder(images))
    (given,) = options
    assert given.intra_op_num_threads == torch.get_num_threads()
    assert given.inter_op_num_threads == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eager", "--compile"], "--compile is for the table of forms"),
        (["eager", "--no-train"], "--no-train is for the table of forms"),
        (["eager", "--forms", "plain"], "--forms is for the table of forms"),
        (["onnxruntime", "--device", "cuda"], "on the CPU in float32"),
        (["onnxruntime", "--amp-dtype", "bfloat16", "--device", "cpu"], "on the CPU in float32"),
        (["onnxruntime", "--device", "cpu"], "onnxscript not installed"),
    ],
)
def test_runtimes_that_cannot_be_measured_end_before_any_work(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SystemExit):
        benchmark.main(["--runtimes", *arguments])
    assert message in capsys.readouterr().err
