from __future__ import annotations

import json
import logging
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_runs import assert_equal_runs, checkpoint, summary, train_in_two_processes
from PIL import Image

from rga_timm.cli import finetune
from rga_timm.data import create_dataset
from rga_timm.data.specs import pair_with_folders
from rga_timm.evaluation import describe_training, load_reports
from rga_timm.training.data import Data


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """People of noise in VIPeR's layout."""
    root = tmp_path / "viper"
    rng = np.random.default_rng(0)
    for camera in ("cam_a", "cam_b"):
        (root / camera).mkdir(parents=True)
        for pid in range(632):
            pixels = rng.integers(0, 256, (4, 2, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / camera / f"{pid:03d}_00.bmp")
    return root


def test_several_sets_are_trained_on_and_others_tested_on(
    options: list[str], people: Path, strangers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    run = finetune.main(
        [
            *options,
            "--epochs",
            "2",
            *("--dataset", "market1501", "viper:split=1"),
            *("--data-dir", str(people), str(strangers)),
            *("--eval-dataset", "viper:split=2", "market1501"),
            *("--eval-data-dir", str(strangers), str(people)),
        ]
    )
    trained = create_dataset("market1501", people), create_dataset("viper:split=1", strangers)
    classes = sum(len(splits.classes) for splits in trained)
    assert len(checkpoint(run)["state_dict"]["fc.weight"]) == classes == 6 + 316
    rows = summary(run)
    reports = load_reports(run / "report.json")
    assert [report.dataset["name"] for report in reports] == ["viper:split=2", "market1501"]
    best = max(rows, key=lambda row: float(row["eval_mAP"]))
    assert float(best["eval_mAP"]) == pytest.approx(reports[0].metrics["mAP"])
    assert float(best["eval_market1501_mAP"]) == pytest.approx(reports[1].metrics["mAP"])
    reid = json.loads((run / "model" / "config.json").read_text())["reid"]
    assert [data["name"] for data in reid["trained_on"]] == ["market1501", "viper:split=1"]
    assert reid["trained_on"][0]["train_pids"] == describe_training(trained[0])["train_pids"]
    assert reid["metrics"]["mAP"] == reports[0].metrics["mAP"]
    assert "per_query" not in reid
    # Half of those whom one partition trains on another one tests on: told at once, and at the end.
    (warning,) = (text for text in reid["warnings"] if "trained on" in text)
    assert "of the 316 people of queries" in warning
    assert caplog.text.count(f"viper:split=2: {warning}") == 2
    assert [report["dataset"]["name"] for report in reid["also_tested_on"]] == ["market1501"]
    resumed = finetune.main(["--resume", str(run), "--epochs", "3"])
    assert summary(resumed)[:2] == rows


def test_a_test_set_is_called_as_in_its_report(strangers: Path) -> None:
    parts = [create_dataset("viper", strangers, split=i) for i in range(2)]
    data = Data(parts[0].train, [parts[0]], [parts[:1], parts[1:], parts])
    assert data.test_names == ["viper", "viper:split=1", "viper:split=all"]
    data = Data(parts[0].train, [parts[0]], [parts[:1], parts[:1]])
    assert data.test_names == ["viper", "viper-2"]


def test_a_run_is_not_resumed_on_other_data(
    options: list[str], people: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(people, tmp_path / "market1501"))
    run = finetune.main([*options, "--epochs", "1", "--data-dir", str(root)])
    for folder in ("query", "bounding_box_train"):
        image = min((root / folder).iterdir())
        image.rename(tmp_path / image.name)
        with pytest.raises(SystemExit, match="its training or test data have changed"):
            finetune.main(["--resume", str(run), "--epochs", "2"])
        (tmp_path / image.name).rename(image)
    finetune.main(["--resume", str(run), "--epochs", "2"])


def test_batches_are_of_all_identities_where_there_are_fewer_than_asked_for(
    options: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run = finetune.main([*options, "--epochs", "1", "--num-identities", "16"])
    assert "Batches are of 6 identities, not 16" in caplog.text
    assert len(summary(run)) == 1


def test_folders_are_for_sets_that_lie_somewhere() -> None:
    specs = ["viper:split=all", "pedestrians", "grid", "hf:repo=me/mine"]
    assert pair_with_folders(specs, ["a"]) == [
        ("viper:split=all", "a"),
        ("pedestrians", None),
        ("grid", "a"),
        ("hf:repo=me/mine", None),
    ]
    assert [folder for _, folder in pair_with_folders(specs, ["a", "b"])] == ["a", None, "b", None]
    assert pair_with_folders(["pedestrians"], ["a"]) == [("pedestrians", "a")]
    assert pair_with_folders(specs[:1], []) == [("viper:split=all", None)]


def test_the_image_cache_trains_the_same_model(options: list[str], tmp_path: Path) -> None:
    # Images that are enlarged come from the cache by another way: hence none is.
    options += ["--enlarge-prob", "0", "--epochs", "2"]
    plain = finetune.main([*options, "--output", str(tmp_path / "plain")])
    cached = finetune.main([*options, "--output", str(tmp_path / "cached"), "--cache", "0.1"])
    assert_equal_runs(plain, cached)
    here = finetune.main(
        [*options, "--output", str(tmp_path / "here"), "--cache", "0.1", "--cache-on-device"]
    )
    assert_equal_runs(plain, here)


def test_two_processes_share_an_image_cache_and_train_as_one(
    options: list[str], tmp_path: Path
) -> None:
    options += ["--freeze-bn", "--epochs", "1", "--opt", "sgd", "--lr", "0.05", "--cache", "0.1"]
    one = finetune.main([*options, "--output", str(tmp_path / "one")])
    two = checkpoint(train_in_two_processes(options, tmp_path / "two"))["state_dict"]
    for key, value in checkpoint(one)["state_dict"].items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-5, msg=key)


def test_a_cache_that_is_too_small_is_refused_with_the_figure(options: list[str]) -> None:
    images, pixels = 6 * 4, 3 * 64 * 32  # test_rga_resnet takes 64x32
    needed = images * pixels / 1e9
    with pytest.raises(SystemExit, match=f"needs {needed:.6f} GB, --cache allows 0.000100 GB"):
        finetune.main([*options, "--cache", "0.0001"])


def test_images_that_cannot_be_read_are_left_out_and_listed(
    options: list[str], people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(people, tmp_path / "market1501")
    bad = min((root / "bounding_box_train").iterdir())
    bad.write_bytes(bad.read_bytes()[:200])
    options += ["--data-dir", str(root), "--epochs", "1", "--epoch-images", "all"]
    with pytest.raises(RuntimeError, match=bad.name):
        finetune.main([*options, "--output", str(tmp_path / "without")])
    with caplog.at_level(logging.WARNING):
        run = finetune.main([*options, "--skip-bad-images"])
    (line,) = (run / "left_out_images.txt").read_text().splitlines()
    assert line.startswith(f"market1501 train bounding_box_train/{bad.name}: ")
    assert bad.name in caplog.text


def test_the_command_printed_at_the_end_works_as_it_stands(
    options: list[str], people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two sets, one is there to be trained on only."""
    root = tmp_path / "my people"
    shutil.copytree(people / "bounding_box_train", root / "train" / "anna")
    (root / "train" / "anna" / "Ünlü.jpg").touch()
    options += ["--epochs", "1", "--skip-bad-images", "--data-dir", str(root), str(people)]
    run = finetune.main([*options, "--dataset", "folder", "market1501"])
    assert "Ünlü.jpg" in (run / "left_out_images.txt").read_text(encoding="utf-8")
    command = capsys.readouterr().out.splitlines()[-1]
    model = f"local-dir:{run / 'model'}"
    wanted = [model, "--dataset", "market1501", "--data-dir", str(people)]
    assert shlex.split(command) == ["rga-timm", "evaluate", *wanted]


def test_the_printed_command_quotes_what_the_shell_would_take_apart(
    options: list[str], people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, folder = r"folder:test_share=1,camera=_c(\d)", tmp_path / "other people"
    for image in (people / "bounding_box_test").glob("0*.jpg"):
        (folder / image.name[:4]).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / image.name[:4])
    finetune.main(
        [*options, "--epochs", "1", "--eval-dataset", spec, "--eval-data-dir", str(folder)]
    )
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[3:] == ["--dataset", spec, "--data-dir", str(folder)]


def test_sets_without_queries_need_others_to_be_tested_on(
    options: list[str], people: Path, tmp_path: Path
) -> None:
    table = tmp_path / "people.csv"
    images = sorted((people / "bounding_box_train").iterdir())
    lines = [f"{image},{image.name[:4]},{image.name[6]},train" for image in images]
    table.write_text("\n".join(["path,identity,camera,split", *lines]) + "\n")
    options += ["--dataset", "table", "--data-dir", str(table), "--epochs", "1"]
    with pytest.raises(SystemExit, match=r"nothing to test on.*--eval-dataset"):
        finetune.main(options)
    run = finetune.main([*options, "--eval-dataset", "market1501", "--eval-data-dir", str(people)])
    assert load_reports(run / "report.json")[0].dataset["name"] == "market1501"


def test_a_set_to_be_tested_on_only_cannot_be_trained_on(
    options: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "prid_2011" / "single_shot"
    for camera, people in (("cam_a", range(1, 201)), ("cam_b", range(1, 203))):
        (root / camera).mkdir(parents=True)
        for pid in people:
            Image.new("RGB", (2, 4)).save(root / camera / f"person_{pid:04d}.png")
    options += ["--dataset", "prid2011:protocol=whole", "--data-dir", str(tmp_path)]
    with pytest.raises(SystemExit, match="prid2011:protocol=whole has no images to train on"):
        finetune.main(options)
