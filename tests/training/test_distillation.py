"""Runs of finetune that learn from a teacher."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from embed_runs import run as embed
from finetune_runs import assert_equal_runs, checkpoint, summary, train_in_two_processes, weights
from torch.nn import functional as F

from rga_timm.cli import finetune
from rga_timm.data import create_dataset, eval_transform
from rga_timm.data.datasets.pedestrians import draw
from rga_timm.data.reader import ReidDataset
from rga_timm.evaluation import Embedder, Protocol
from rga_timm.training.teacher import OnlineTeacher, read_stored_teacher

TEACHER = "test_rga_resnet.pedestrians"
SIZE = (64, 32)


@pytest.fixture(scope="module")
def stored(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "embeddings"
    data = ("--dataset", "market1501", "--data-dir", people, "--splits", "train")
    return embed(TEACHER, *data, "--output", folder)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose identities are not used."""
    return draw(
        tmp_path_factory.mktemp("strangers") / "market1501",
        train_ids=3, train_images=2, test_ids=1, gallery_images=1, distractors=0, junk=0,
        seed=1, progress=False,
    )  # fmt: skip


@pytest.fixture(params=["stored", "on line"])
def teacher(request: pytest.FixtureRequest, stored: Path) -> list[str]:
    if request.param == "stored":
        return ["--teacher-embeddings", str(stored)]
    return ["--teacher", TEACHER]


def test_stored_features_are_those_of_the_images(people: Path, stored: Path) -> None:
    train = create_dataset("market1501", people).train
    model = timm.create_model(TEACHER, pretrained=True)
    cfg = model.pretrained_cfg
    images = ReidDataset(train, eval_transform(SIZE, cfg["mean"], cfg["std"], cfg["interpolation"]))
    teacher = read_stored_teacher([stored], [("market1501", train)])
    with torch.inference_mode():
        expected = Embedder(model)(torch.stack([images[i][0] for i in (5, 2)]))
    torch.testing.assert_close(teacher(torch.empty(2), [5, 2]), expected, atol=1e-5, rtol=1e-4)
    assert [record["name"] for record in teacher.records] == [TEACHER]


def test_several_teachers_count_equally(people: Path, stored: Path, tmp_path: Path) -> None:
    data = ("--dataset", "market1501", "--data-dir", people, "--splits", "train")
    other = embed(TEACHER, "--flip", *data, "--output", tmp_path / "other")
    readers = [("market1501", create_dataset("market1501", people).train)]
    both, *single = (
        read_stored_teacher(folders, readers).features
        for folders in ([stored, other], [stored], [other])
    )
    mean = sum(features @ features.T for features in single) / 2
    torch.testing.assert_close(both @ both.T, mean)


def test_a_teacher_on_line_sees_the_images_in_its_own_preprocessing() -> None:
    model = timm.create_model(TEACHER, pretrained=True)
    protocol = Protocol.of_data_config(timm.data.resolve_data_config({}, model=model))
    pixels = torch.rand(2, 3, 64, 32)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    teacher = OnlineTeacher(model, protocol, mean.tolist(), std.tolist(), [])
    mean, std = mean[:, None, None], std[:, None, None]
    found = teacher((pixels - mean) / std, [0, 1])
    own_mean, own_std = (
        torch.tensor(value)[:, None, None] for value in (protocol.mean, protocol.std)
    )
    own = F.interpolate((pixels - own_mean) / own_std, protocol.img_size, mode="bilinear")
    with torch.inference_mode():
        expected = Embedder(model)(own)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_run_logs_what_it_learns_and_records_from_whom(
    options: list[str], teacher: list[str]
) -> None:
    run = finetune.main([*options, *teacher, "--epochs", "1"])
    (row,) = summary(run)
    assert 0 < float(row["train_similarity"]) < 1
    assert 0 < float(row["train_projection"]) < 2
    reid = json.loads((run / "model" / "config.json").read_text())["reid"]
    assert [record["name"] for record in reid["teachers"]] == [TEACHER]
    assert "projection.weight" not in weights(run)


def test_a_distilled_run_is_resumed_to_the_bit(
    options: list[str], strangers: Path, tmp_path: Path
) -> None:
    recipe = ["--teacher", TEACHER, "--ema-decay", "0.9", "--sched", "none"]
    recipe += ["--unlabelled", "market1501", "--unlabelled-data-dir", str(strangers)]
    recipe += ["--unlabelled-images", "3"]
    whole = finetune.main([*options, *recipe])
    part = finetune.main([*options, *recipe, "--epochs", "2", "--output", str(tmp_path / "part")])
    finetune.main(["--resume", str(part), "--epochs", "3"])
    assert_equal_runs(whole, part)
    states = [checkpoint(run)["task_state"]["weight"] for run in (whole, part)]
    assert torch.equal(*states)


def test_two_processes_distil_as_one(
    options: list[str], stored: Path, people: Path, tmp_path: Path
) -> None:
    # Batch norms would see half of a batch.
    recipe = [*options[:2], "--teacher-embeddings", str(stored), "--freeze-bn"]
    recipe += ["--unlabelled", "market1501", "--unlabelled-data-dir", str(people)]
    recipe += ["--unlabelled-images", "4", "--num-identities", "4", "--epochs", "1"]
    one = finetune.main([*recipe, "--output", str(tmp_path / "one")])
    two = train_in_two_processes(recipe, tmp_path / "two")
    for (name, value), other in zip(weights(one).items(), weights(two).values(), strict=True):
        torch.testing.assert_close(other, value, atol=2e-5, rtol=1e-3, msg=name)
    first, second = summary(one)[0], summary(two)[0]
    for name in ("train_similarity", "train_projection", "train_triplet"):
        assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-3)


def test_images_without_identities_are_learned_from_and_recorded(
    options: list[str], strangers: Path
) -> None:
    recipe = ["--teacher", TEACHER, "--epochs", "1", "--unlabelled-images", "5"]
    recipe += ["--unlabelled", "market1501", "--unlabelled-data-dir", str(strangers)]
    run = finetune.main([*options, *recipe])
    reid = json.loads((run / "model" / "config.json").read_text())["reid"]
    labelled, unlabelled = reid["trained_on"]
    assert "unlabelled" not in labelled
    assert unlabelled["unlabelled"] is True
    assert unlabelled["train"]["images"] == 6
    assert len(checkpoint(run)["state_dict"]["fc.weight"]) == 6  # people, all of them labelled


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--teacher", "no_such_model"], "no_such_model"),
        (["--teacher", "missing.onnx"], r"there is no file missing\.onnx"),
        (["--teacher-embeddings", "missing"], "missing does not exist"),
        (["--teacher", TEACHER, "--teacher-embeddings", "x"], "excludes --teacher-embeddings"),
        (["--teacher", TEACHER, "--teacher-channel-order", "bgr"], "timm models take RGB"),
        (["--unlabelled", "market1501"], "needs a --teacher"),
        (
            ["--teacher", TEACHER, "--similarity-weight", "0", "--projection-weight", "0"],
            "above 0",
        ),
    ],
    ids=str,
)
def test_wrong_teachers_are_refused_before_training(
    options: list[str], extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        finetune.main([*options, *extra])
    text = capsys.readouterr().err if stop.value.code == 2 else str(stop.value)
    assert re.search(message, text)


def test_images_without_a_stored_feature_are_counted(
    options: list[str], stored: Path, strangers: Path
) -> None:
    recipe = ["--data-dir", str(strangers), "--teacher-embeddings", str(stored)]
    with pytest.raises(SystemExit, match=r"\d of 6 images have no stored feature .*--splits train"):
        finetune.main([*options, *recipe])
