from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import yaml
from finetune_runs import checkpoint, summary, weights
from hub_cache import put_into_hub_cache
from models.random_weights import scramble
from safetensors.torch import load_file

from rga_timm.cli import finetune
from rga_timm.cli.finetune import parse_args
from rga_timm.data import create_dataset
from rga_timm.evaluation import describe_training
from rga_timm.hub import read_reid, save_pretrained, weights_folder

# A rate so small that weights stay what they were; their batch norms' statistics with --freeze-bn.
STILL = ["--pretrained", "--lr", "1e-30", "--min-lr", "0", "--opt", "sgd", "--weight-decay", "0"]
STILL += ["--freeze-bn", "--epochs", "1"]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A model's folder, as a run leaves it."""

    def make(name: str = "test_rga_resnet", reid: Any = None, **kwargs: Any) -> Path:
        model = scramble(timm.create_model(name, **kwargs))
        args = {k: v for k, v in kwargs.items() if k == "channels"}
        return save_pretrained(model, tmp_path / "start" / "model", reid=reid, model_args=args)

    return make


@pytest.fixture
def trained_on(people: Path) -> list[dict[str, Any]]:
    return [describe_training(create_dataset("market1501", people))]


def assert_started_from(run: Path, folder: Path, *new: str) -> None:
    """The weights of a run that stood still are the checkpoint's, but for those."""
    start, end = load_file(folder / "model.safetensors"), weights(run)
    assert {k for k in start.keys() | end.keys() if k.startswith(new)} == set(new)
    for key, value in start.items():
        if key not in new:
            torch.testing.assert_close(end[key], value.to(end[key].dtype), rtol=0, atol=0, msg=key)


def said(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("form", ["{}", "local-dir:{}", "run"])
def test_a_folder_is_started_from_by_whatever_name(
    form: str, make: Callable[..., Path], options: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(num_classes=9)
    name = str(folder.parent) if form == "run" else form.format(folder)
    with caplog.at_level(logging.INFO):
        run = finetune.main([*options, *STILL, "--model", name])
    assert_started_from(run, folder, "fc.weight")
    assert said(caplog, "classifier of 9 identities is dropped: the model has 6") == 1
    assert said(caplog, "is dropped") == 1


def test_a_repository_is_started_from(
    make: Callable[..., Path],
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = make(num_classes=9)
    put_into_hub_cache(folder, tmp_path / "cache", "someone/rga")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with caplog.at_level(logging.INFO):
        run = finetune.main([*options, *STILL, "--model", "hf-hub:someone/rga"])
    assert_started_from(run, folder, "fc.weight")
    assert said(caplog, "classifier of 9 identities is dropped") == 1
    started_from = read_reid(f"local-dir:{run / 'model'}")["started_from"]
    assert started_from["repository"] == "someone/rga"
    assert len(started_from["sha256"]) == 64


def test_what_the_model_was_made_with_is_kept_at_another_size(
    make: Callable[..., Path], options: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = {"relation": "s", "native_size": (80, 48), "reduction": 4, "channels": (8, 8, 16, 16)}
    folder = make(num_classes=9, img_size=(80, 48), global_pool="max", **made)
    with caplog.at_level(logging.INFO):
        run = finetune.main([*options, *STILL, "--model", str(folder), "--img-size", "96", "40"])
    model = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True)
    assert (model.relation, model.native_size, model.reduction) == ("s", (80, 48), 4)
    assert (model.img_size, model.num_classes, model.pool_type) == ((96, 40), 6, "max")
    assert said(caplog, "resampled from images of 80x48 to 96x40") == 1
    assert said(caplog, "classifier of 9 identities is dropped") == 1
    start = timm.create_model(f"local-dir:{folder}", pretrained=True)
    start.set_input_size((96, 40))
    state = model.state_dict()
    for key, value in start.state_dict().items():
        if key != "fc.weight":
            torch.testing.assert_close(state[key], value, rtol=0, atol=0, msg=key)
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["model_args"]["channels"] == [8, 8, 16, 16]


def test_a_plain_timm_model_says_what_became_of_its_classifier(
    make: Callable[..., Path], options: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make("test_resnet", num_classes=9)
    size = ["--img-size", "64", "32"]
    with caplog.at_level(logging.INFO):
        run = finetune.main([*options, *STILL, "--model", str(folder), *size])
    assert_started_from(run, folder, "fc.weight", "fc.bias")
    assert said(caplog, "classifier of 9 classes is dropped: the model has 6") == 1


@pytest.mark.parametrize("name", ["test_rga_resnet", "test_resnet"])
@pytest.mark.parametrize(
    ("reid", "message"),
    [
        (None, "it does not say of which people"),
        ({"trained_on": [{"name": "market1501"}]}, "it does not say of which people of market1501"),
        (
            {"trained_on": [{"name": "msmt17", "train_pids": None, "fingerprint": "x"}]},
            "they are other people, of msmt17",
        ),
        (
            {"trained_on": [{"name": "market1501", "train_pids": "1..6", "fingerprint": "x"}]},
            "they are other people, of market1501",
        ),
    ],
    ids=["unknown", "unknown part", "other data", "other partition"],
)
def test_a_classifier_of_as_many_others_is_dropped(
    name: str,
    reid: Any,
    message: str,
    make: Callable[..., Path],
    options: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = make(name, num_classes=6, reid=reid)
    with caplog.at_level(logging.INFO):
        run = finetune.main([*options, *STILL, "--model", str(folder), "--img-size", "64", "32"])
    assert said(caplog, f"classifier of 6 identities is dropped: {message}.") == 1
    start, end = load_file(folder / "model.safetensors"), weights(run)
    assert not torch.equal(start["fc.weight"], end["fc.weight"])
    assert_started_from(run, folder, *(key for key in end if key.startswith("fc.")))


@pytest.mark.parametrize("name", ["test_rga_resnet", "test_resnet"])
def test_a_classifier_of_the_same_people_is_kept(
    name: str,
    make: Callable[..., Path],
    trained_on: list[dict[str, Any]],
    options: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = make(name, num_classes=6, reid={"trained_on": trained_on})
    with caplog.at_level(logging.INFO):
        run = finetune.main([*options, *STILL, "--model", str(folder), "--img-size", "64", "32"])
    assert said(caplog, "classifier is kept: it is of the same 6 people") == 1
    assert said(caplog, "is dropped") == 0
    assert_started_from(run, folder)


def test_a_file_of_as_many_identities_gives_no_classifier(
    make: Callable[..., Path], options: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(num_classes=6)
    file = ["--pretrained-path", str(folder / "model.safetensors")]
    with caplog.at_level(logging.INFO):
        run = finetune.main([*options, *STILL, *file])
    assert said(caplog, "identities is dropped: it does not say of which people.") == 1
    assert not torch.equal(
        load_file(folder / "model.safetensors")["fc.weight"], weights(run)["fc.weight"]
    )


def test_the_run_records_what_it_started_from_and_no_path(
    make: Callable[..., Path], options: list[str], people: Path, tmp_path: Path
) -> None:
    folder = make(num_classes=9, reid={"trained_on": [{"name": "msmt17"}]})
    run = finetune.main([*options, *STILL, "--model", str(folder.parent), "--eval-initial"])
    reid = read_reid(f"local-dir:{run / 'model'}")
    started_from = reid["started_from"]
    assert started_from.pop("sha256")
    assert started_from == {"architecture": "test_rga_resnet", "trained_on": ["msmt17"]}
    assert reid["options"]["model"] == reid["model"] == "test_rga_resnet"
    assert [source["name"] for source in reid["trained_on"]] == ["market1501", "msmt17"]
    config = (run / "model" / "config.json").read_text()
    assert str(tmp_path) not in config
    assert str(people) not in config
    # And a run from that run: its people are the same, so that it goes on with their classifier.
    again = finetune.main([*options, *STILL, "--model", str(run), "--output", str(tmp_path / "2")])
    assert_started_from(again, run / "model")


def test_people_that_the_checkpoint_was_trained_on_are_not_forgotten(
    make: Callable[..., Path], options: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Who is tested on, of the same numbering, was trained on before.
    seen = {"name": "market1501", "train_pids": "1..4000", "fingerprint": "x"}
    folder = make(num_classes=9, reid={"trained_on": [seen]})
    run = finetune.main([*options, *STILL, "--model", str(folder)])
    reid = read_reid(f"local-dir:{run / 'model'}")
    text = "market1501: the weights to start from: the model was trained on 4 of the 4"
    assert said(caplog, text)
    assert any("the scores are too good" in warning for warning in reid["warnings"])
    assert reid["trained_on"][1:] == [{**seen, "earlier": True}]

    # And by the checkpoint before that one; the classifier is of the last people alone.
    caplog.clear()
    again = [*options, *STILL, "--model", str(run), "--output", str(tmp_path / "second")]
    with caplog.at_level(logging.INFO):
        second = finetune.main(again)
    assert said(caplog, "classifier is kept: it is of the same 6 people") == 1
    assert read_reid(f"local-dir:{second / 'model'}")["trained_on"] == reid["trained_on"]


def test_a_run_from_a_folder_is_resumed_with_the_folder(
    make: Callable[..., Path], options: list[str]
) -> None:
    folder = make(num_classes=9, relation="s")
    start = ["--pretrained", "--model", str(folder), "--epochs", "1"]
    run = finetune.main([*options, *start])
    assert yaml.safe_load((run / "args.yaml").read_text())["model"] == f"local-dir:{folder}"
    moved = checkpoint(run)["state_dict"]["conv1.weight"]
    assert finetune.main(["--resume", str(run), "--epochs", "2"]) == run
    assert [row["epoch"] for row in summary(run)] == ["0", "1"]
    assert not torch.equal(checkpoint(run)["state_dict"]["conv1.weight"], moved)
    assert timm.create_model(f"local-dir:{run / 'model'}").relation == "s"


def test_the_recipe_of_the_embedded_data_leaves_a_trained_model_as_it_is(
    make: Callable[..., Path],
) -> None:
    folder = make(native_size=(80, 48))
    args = parse_args(["--model", str(folder)])
    assert args.pretrained
    assert args.model_kwargs == {}
    assert "test_rga_resnet-pedestrians" in args.output
    assert str(folder) not in args.output
    assert not parse_args(["--model", str(folder), "--no-pretrained"]).pretrained
    assert not parse_args(["--model", "rga_resnet18"]).pretrained


# Tags.


def test_a_tag_names_the_weights(tmp_path: Path) -> None:
    data = ["--dataset", "market1501"]
    tag = ["--model", "rga_resnet50", "--pretrained-tag", "tv_in1k"]
    args = parse_args([*data, *tag])
    assert args.model == "rga_resnet50.tv_in1k"
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(args.to_dict()))
    assert parse_args(["--resume", str(tmp_path)]).model == "rga_resnet50.tv_in1k"
    assert parse_args(["--pretrained-tag", "tv_in1k"]).pretrained  # whatever the recipe says


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pretrained-tag", "nope"], "rga_resnet50 has no weights 'nope'; it has tv_in1k"),
        (["--model", "rga_resnet50.nope"], "rga_resnet50 has no weights 'nope'; it has tv_in1k"),
        (
            ["--model", "resnet18", "--pretrained-tag", "nope"],
            "resnet18 has no weights 'nope'; it has a1_in1k, ",
        ),
        (
            ["--model", "test_rga_resnet", "--pretrained-tag", "untrained"],
            "test_rga_resnet.untrained has no weights of its own: --pretrained-path FILE",
        ),
        (
            ["--model", "rga_resnet50.tv_in1k", "--pretrained-tag", "tv_in1k"],
            "excludes the tag in --model rga_resnet50.tv_in1k",
        ),
        (
            ["--model", "hf-hub:someone/rga", "--pretrained-tag", "x"],
            "excludes --model hf-hub:someone/rga, which brings its weights",
        ),
        (["--no-pretrained", "--pretrained-tag", "x"], "excludes --no-pretrained"),
        (
            ["--pretrained-path", __file__, "--pretrained-tag", "x"],
            "excludes --pretrained-path",
        ),
        (
            ["--model", "hf-hub:someone/rga", "--pretrained-path", __file__],
            "brings its weights: no --pretrained-path",
        ),
    ],
)
def test_tags_that_cannot_be_meant_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_args(["--dataset", "market1501", *arguments])
    assert message in capsys.readouterr().err


def test_a_run_starts_from_a_checkpoint_of_the_zoo(
    options: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    name = "test_rga_resnet.pedestrians"
    start = ["--model", "test_rga_resnet", "--pretrained-tag", "pedestrians"]
    with caplog.at_level(logging.INFO):
        run = finetune.main([*options, *STILL, *start])
    assert_started_from(run, weights_folder() / name, "fc.weight")
    assert said(caplog, "The classifier of 6 identities is new.") == 1
    reid = read_reid(f"local-dir:{run / 'model'}")
    assert reid["started_from"] == {"architecture": "test_rga_resnet", "name": name}
    sources = [(one["name"], one.get("earlier", False)) for one in reid["trained_on"]]
    assert sources == [("market1501", False), ("pedestrians", True)]


# Folders and files that hold no model.


def broken(folder: Path, how: str) -> None:
    config = folder / "config.json"
    if how in ("config.json", "model.safetensors"):
        (folder / how).unlink()
    elif how == "not json":
        config.write_text('{"architecture": ')
    elif how == "no architecture":
        config.write_text("[1, 2]")
    elif how == "cut short":
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:100])
    else:
        config.write_text(config.read_text().replace("test_rga_resnet", "rga_resnet51"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("config.json", "there is no model in {0}: {0}/config.json is missing"),
        ("not json", "{0}/config.json cannot be read: "),
        ("no architecture", "{0}/config.json names no architecture"),
        ("unknown architecture", "'rga_resnet51', a model that timm does not know"),
        ("model.safetensors", "there are no weights in {0}: {0}/model.safetensors is missing"),
        ("cut short", "{0}/model.safetensors holds no weights that can be read: "),
    ],
)
@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_folders_that_hold_no_model_end_the_program_at_once(
    prefix: str,
    how: str,
    message: str,
    make: Callable[..., Path],
    options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make(num_classes=9)
    broken(folder, how)
    with pytest.raises(SystemExit):
        parse_args([*options, "--model", f"{prefix}{folder}"])
    assert message.format(folder) in capsys.readouterr().err


def test_a_run_that_has_not_ended_is_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "args.yaml").write_text("lr: 1\n")
    with pytest.raises(SystemExit):
        parse_args(["--model", str(tmp_path)])
    assert f"there is no model in {tmp_path}: the run has not ended" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_told_from_a_repository(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse_args(["--model", "someone/rga_resnet50"])
    assert "no folder someone/rga_resnet50; a repository" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["text", "other weights"])
def test_a_file_that_does_not_fit_ends_with_a_message(
    content: str, options: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    file.write_text("no weights")
    if content == "other weights":
        torch.save(timm.create_model("test_resnet").state_dict(), file)
    with pytest.raises(SystemExit, match=r"weights\.pth") as ended:
        finetune.main([*options, "--pretrained-path", str(file)])
    expected = "does not fit" if content == "other weights" else "no weights that can be read"
    assert expected in str(ended.value)
