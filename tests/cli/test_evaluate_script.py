from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import resolve_data_config

from rga_timm.cli import evaluate as evaluate_verb
from rga_timm.data import create_dataset, create_eval_loader, eval_transform
from rga_timm.evaluation import (
    Compute,
    ModelRecord,
    Protocol,
    ReidResult,
    Report,
    Reranking,
    embed,
    evaluate,
    evaluate_dataset,
    load_reports,
)

FOLDERS = {"bounding_box_train": 1, "query": 3, "bounding_box_test": 3}


def run_all(*arguments: object) -> list[Report]:
    argv = [str(argument) for argument in (*arguments, "--device", "cpu", "--workers", 0)]
    return evaluate_verb.main(argv)


def run(*arguments: object) -> Report:
    (report,) = run_all(*arguments)
    return report


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people, a distractor and junk, of noise, in Market-1501's layout."""
    root = tmp_path_factory.mktemp("market")
    rng = np.random.default_rng(0)
    for folder, first in FOLDERS.items():
        (root / folder).mkdir()
        names = [f"{pid:04d}_c{cam}s1_0001_00" for pid in (first, first + 1) for cam in (1, 2, 3)]
        if folder == "bounding_box_test":
            names += ["0000_c1s1_0002_00", "-1_c1s1_0003_00"]
        for name in names:
            pixels = rng.integers(0, 256, (64, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{name}.jpg")
    return root


@pytest.fixture
def options(market: Path) -> tuple[object, ...]:
    return "--dataset", "market1501", "--data-dir", market, "--img-size", 64, 32


def by_hand(
    model: torch.nn.Module, root: Path, rerank: Reranking | None = None, **embed_options: Any
) -> ReidResult:
    splits = create_dataset("market1501", root)
    cfg = model.pretrained_cfg
    transform = eval_transform((64, 32), cfg["mean"], cfg["std"], cfg["interpolation"])
    query, gallery = (
        embed(model, create_eval_loader(reader, transform, num_workers=0), **embed_options)
        for reader in (splits.query, splits.gallery)
    )
    ids = (query.pids, query.camids, gallery.features, gallery.pids, gallery.camids)
    return evaluate(query.features, *ids, rerank=rerank)


def assert_metrics(report: Report, expected: ReidResult) -> None:
    for name in ("mAP", "mAP_trapezoid", "mINP"):
        assert report.metrics[name] == pytest.approx(getattr(expected, name)), name
    assert report.metrics["cmc"] == pytest.approx(expected.cmc.tolist())
    assert report.metrics["num_valid_queries"] == expected.num_valid_queries == 6


def untrained(name: str, **model_options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **model_options)


def test_the_report_holds_what_the_functions_give(
    options: tuple[object, ...], market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.json"
    report = run("test_resnet", "--no-pretrained", *options, "--output", output)
    assert_metrics(report, by_hand(untrained("test_resnet"), market))
    assert Report.load(output) == report
    written = json.loads(output.read_text())
    assert written["checkpoint"] == "untrained"
    assert written["dataset"]["name"] == "market1501"
    assert written["dataset"]["gallery"]["images"] == 7
    assert written["protocol"]["img_size"] == [64, 32]
    assert f"| {100 * report.metrics['mAP']:.1f} " in capsys.readouterr().out


def test_flip_metric_and_reranking_reach_the_functions(
    options: tuple[object, ...], market: Path
) -> None:
    test = ("--flip", "--rerank", "--k1", 4, "--k2", 2, "--lambda-value", 0.2)
    report = run("test_resnet", "--no-pretrained", *options, *test, "--feature", "pooled")
    assert report.protocol.rerank == Reranking(4, 2, 0.2)
    assert report.protocol.flip
    assert report.protocol.feature == "pooled"
    expected = by_hand(untrained("test_resnet"), market, Reranking(4, 2, 0.2), flip=True)
    assert_metrics(report, expected)


def test_models_of_a_fixed_size_are_told_it(options: tuple[object, ...], market: Path) -> None:
    report = run("test_vit", "--no-pretrained", *options)
    assert_metrics(report, by_hand(untrained("test_vit", img_size=(64, 32)), market))


@pytest.mark.parametrize("kind", ["safetensors", "training checkpoint", "no classifier"])
def test_checkpoints_load(
    kind: str, options: tuple[object, ...], market: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    num_classes = 0 if kind == "no classifier" else 7
    model = timm.create_model("test_resnet", num_classes=num_classes)
    for value in model.state_dict().values():  # nothing as it was initialised
        value.copy_(value * 1.5 + 1 if value.is_floating_point() else value)
    if kind == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(model.state_dict(), path)
    else:
        path = tmp_path / "model.pth.tar"
        state = {f"module.{name}": value for name, value in model.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": state}, path)
    report = run("test_resnet", "--checkpoint", path, *options)
    assert_metrics(report, by_hand(model, market))
    assert report.checkpoint == str(path)


def test_a_checkpoint_of_another_model_is_refused(
    options: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    with pytest.raises(SystemExit):
        run("test_resnet", "--checkpoint", path, *options)
    message = capsys.readouterr().err
    assert f"test_resnet cannot be made with the weights of {path}: " in message
    assert "Missing key" in message


@pytest.mark.parametrize("name", ["notes.pth", "notes.safetensors", "list.pth"])
def test_a_file_that_holds_no_weights_is_refused(
    name: str,
    options: tuple[object, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    path.write_text("no weights")
    if name.startswith("list"):
        torch.save([1, 2], path)
    with pytest.raises(SystemExit):
        run("test_resnet", "--checkpoint", path, *options)
    assert f"{path} holds no weights that can be read: " in capsys.readouterr().err


def test_scales_that_the_model_cannot_take_end_before_any_image_is_read(
    options: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("test_vit", "--no-pretrained", *options, "--scales", 1, 1.001)
    message = capsys.readouterr().err
    assert "the scales 1 and 1.001 of 64x32 images are both 64x32" in message


def test_a_folder_is_no_file_to_write_to(
    no_model_is_made: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("test_resnet", "--no-pretrained", "--output", tmp_path)
    assert f"{tmp_path} is a folder, not a file to write to" in capsys.readouterr().err


def test_where_nothing_may_be_written_it_is_refused(
    no_model_is_made: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Asked of the system and not of the disk: an administrator may write everywhere.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(SystemExit):
        run("test_resnet", "--no-pretrained", "--output", tmp_path / "report.json")
    assert "report.json must not be written: there is no permission" in capsys.readouterr().err


def test_a_folder_in_the_hubs_layout_is_evaluated(
    options: tuple[object, ...], market: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=4)
    timm.models.save_for_hf(model, tmp_path)
    report = run(f"local-dir:{tmp_path}", *options)
    assert_metrics(report, by_hand(model, market))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_model"], "timm knows no model 'no_such_model'"),
        (["test_resnet", "--checkpoint", "no_such.pth"], "there is no file no_such.pth"),
        (["local-dir:x", "--no-pretrained"], "brings its weights"),
        (["local-dir:nothere"], "there is no model in nothere: nothere/config.json is missing"),
        (["test_resnet", "--output", "no_such_folder/x.json"], "there is no folder no_such_folder"),
        (["test_resnet", "--img-size", "0", "5"], "--img-size: must be at least 1, not 0"),
        (["test_resnet", "--workers", "-1"], "--workers: must be at least 0, not -1"),
        (["test_resnet", "--device", "abacus"], "--device abacus"),
        (
            ["beit3_giant_patch14_224", "--feature", "pooled"],
            "beit3_giant_patch14_224 has no weights of its own",
        ),
        (
            ["test_resnet", "--dataset", "market1501", "--data-dir", "no_such"],
            "no_such does not exist",
        ),
        (["test_resnet", "--no-pretrained", "--dataset", "nobody"], "unknown data set 'nobody'"),
        (
            ["test_resnet", "--no-pretrained", "--dataset", "viper:split=10"],
            "split 10 is not one of the 10",
        ),
        (
            ["test_resnet", "--no-pretrained", "--dataset", "viper", "--data-dir", "a", "b"],
            "one folder for all data sets or one for each: there are 2 for 1",
        ),
        (["test_resnet", "--rerank", "--k1", "0"], "at least 1"),
        (["test_resnet", "--checkpoint", "x", "--no-pretrained"], "not allowed with"),
    ],
)
def test_bad_options_end_before_any_work(
    no_model_is_made: None,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        evaluate_verb.main(arguments)
    assert message in capsys.readouterr().err


def test_reranking_wider_than_the_data_set_ends_before_any_work(
    options: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("test_resnet", "--no-pretrained", *options, "--rerank")
    assert "k1 = 20 must be below" in capsys.readouterr().err


@pytest.fixture(scope="module")
def viper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People of noise, under both cameras, in VIPeR's layout."""
    root = tmp_path_factory.mktemp("viper")
    rng = np.random.default_rng(1)
    for camera, angle in (("cam_a", 0), ("cam_b", 90)):
        (root / camera).mkdir()
        for pid in range(632):
            pixels = rng.integers(0, 256, (4, 2, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / camera / f"{pid:03d}_{angle}.bmp")
    return root


def test_several_data_sets_make_one_table_and_one_file(
    market: Path, viper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--dataset", "market1501", "viper:split=3", "--data-dir", market, viper]
    options = ["test_resnet", "--no-pretrained", "--img-size", 64, 32]
    reports = run_all(*options, *data, "--output", tmp_path / "reports.json")
    assert [report.dataset["name"] for report in reports] == ["market1501", "viper:split=3"]
    assert reports[0].metrics == run(*options, *data[:2], *data[3:5]).metrics
    assert load_reports(tmp_path / "reports.json") == reports
    rows = [line for line in capsys.readouterr().out.splitlines() if "test_resnet" in line]
    assert len(rows) == 3


def test_all_partitions_are_reported_by_their_mean(viper: Path) -> None:
    options = ["test_resnet", "--no-pretrained", "--img-size", 32, 16, "--data-dir", viper]
    mean = run(*options, "--dataset", "viper:split=all")
    splits = [create_dataset("viper", viper, split=i) for i in range(10)]
    model = untrained("test_resnet")
    config = resolve_data_config({"input_size": (3, 32, 16)}, model=model)
    protocol = Protocol((32, 16), config["interpolation"], config["mean"], config["std"])
    single = [
        evaluate_dataset(model, part, protocol, ModelRecord("x"), compute=Compute(num_workers=0))
        for part in splits
    ]
    assert mean.dataset["name"] == "viper:split=all"
    for name in ("mAP", "mINP"):
        scores = [report.metrics[name] for report in single]
        assert len(set(scores)) > 1
        assert mean.metrics[name] == pytest.approx(np.mean(scores))


def test_bad_images_end_the_evaluation_or_are_left_out_and_listed(
    market: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(market, tmp_path / "market")
    bad = root / "bounding_box_test" / "0000_c1s1_0002_00.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    options = ["test_resnet", "--no-pretrained", "--img-size", 64, 32, "--dataset", "market1501"]
    with pytest.raises(RuntimeError, match=bad.name):
        run(*options, "--data-dir", root)
    with caplog.at_level(logging.WARNING):
        report = run(*options, "--data-dir", root, "--skip-bad-images")
    assert f"left out: market1501 gallery bounding_box_test/{bad.name}: " in caplog.text
    assert report.dataset["gallery"]["images"] == 6
    bad.unlink()
    assert report.metrics == run(*options, "--data-dir", root).metrics
