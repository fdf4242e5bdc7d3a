from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from models.official_network import OfficialNetwork, assert_parity
from models.random_weights import scramble, settle
from torch import nn

from rga_timm.cli import convert_official, evaluate
from rga_timm.data.datasets.pedestrians import draw
from rga_timm.evaluation import load_reports
from rga_timm.hub import read_reid
from rga_timm.hub.official_file import read_official_file

# Small, but with N/8 and C/8 of 7 and more: the paper's code knows no smaller widths.
SIZE = (192, 96)
CHANNELS = (16, 20, 24, 32)
SMALL = [
    "--model", "test_rga_resnet", "--model-kwargs", "channels=(16,20,24,32)",
    "--img-size", "192", "96",
]  # fmt: skip
KINDS: dict[str, dict[str, bool]] = {
    "sc": {},
    "s": {"channel": False},
    "c": {"spatial": False},
    "none": {"spatial": False, "channel": False},
}
NAMES = {"sc": "rga_resnet50", "s": "rgas_resnet50", "c": "rgac_resnet50", "none": "rga_resnet50"}


def some_images(count: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def official(relation: str = "sc", num_classes: int = 6) -> nn.Module:
    network = scramble(OfficialNetwork(num_classes, CHANNELS, SIZE, **KINDS[relation]))
    network.feat_bn.bias.data.zero_()
    return settle(network, some_images(6, seed=4))


def save(path: Path, content: Any, **kwargs: Any) -> Path:
    torch.save(content, path, **kwargs)
    return path


def convert(file: Path, output: Path, *options: object) -> Path:
    return convert_official.main([str(file), "--output", str(output), *map(str, options)])


def load(folder: Path, **kwargs: Any) -> nn.Module:
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **kwargs).eval()


def assert_same_outputs(folder: Path, network: nn.Module) -> None:
    assert_parity(load(folder), network, some_images(2))


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("relation", KINDS)
def test_a_converted_checkpoint_gives_the_same_outputs(
    relation: str, prefix: str, is_zip: bool, tmp_path: Path
) -> None:
    network = official(relation)
    weights = {prefix + key: value for key, value in network.state_dict().items()}
    file = save(
        tmp_path / "checkpoint_3.pth.tar",
        {"state_dict": weights, "epoch": 3, "best_top1": 0.9},
        _use_new_zipfile_serialization=is_zip,
    )
    assert_same_outputs(convert(file, tmp_path / "model", *SMALL), network)


@pytest.mark.parametrize("relation", ["sc", "s", "c"])
def test_the_papers_network_is_recognised(relation: str, tmp_path: Path) -> None:
    widths, blocks = (64, 128, 256, 512), (3, 4, 6, 3)
    network = scramble(OfficialNetwork(7, widths, (256, 128), blocks, **KINDS[relation]))
    network.feat_bn.bias.data.zero_()
    images = torch.randn(2, 3, 256, 128, generator=torch.Generator().manual_seed(0))
    settle(network, images)
    file = save(tmp_path / "checkpoint.pth", {"state_dict": network.state_dict(), "epoch": 600})
    folder = convert(file, tmp_path / "model")
    model = load(folder)
    assert json.loads((folder / "config.json").read_text())["architecture"] == NAMES[relation]
    assert (model.relation, model.num_classes, model.img_size) == (relation, 7, (256, 128))
    with torch.no_grad():
        images, model = images.double(), model.double()
        expected = network.double()(images)[1]
        actual = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-7)
    assert (expected[0] - expected[1]).abs().mean() > 0.1


@pytest.mark.parametrize("relation", KINDS)
def test_the_file_tells_model_relation_and_identities(relation: str, tmp_path: Path) -> None:
    file = read_official_file(save(tmp_path / "x.pth", official(relation, 11).state_dict()))
    assert (file.model, file.relation, file.num_identities) == (NAMES[relation], relation, 11)
    assert file.positions == ({} if relation == "none" else {1: 1152, 2: 288, 3: 72, 4: 72})


def test_where_it_is_from_is_recorded_and_nothing_of_imagenet(tmp_path: Path) -> None:
    weights = official().state_dict()
    file = save(tmp_path / "checkpoint_600.pth.tar", {"state_dict": weights, "epoch": 600})
    folder = convert(file, tmp_path / "model", *SMALL, "--trained-on", "market1501")
    reid = read_reid(f"local-dir:{folder}")
    origin = reid["converted_from"]
    assert origin["code"].endswith("microsoft/Relation-Aware-Global-Attention-Networks")
    assert (origin["file"], origin["epoch"]) == ("checkpoint_600.pth.tar", 600)
    assert re.fullmatch("[0-9a-f]{64}", origin["sha256"])
    assert reid["trained_on"] == [{"name": "market1501"}]
    text = (folder / "config.json").read_text()
    assert str(tmp_path) not in text
    assert "tv_in1k" not in text
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_the_classifier_can_be_left_out(tmp_path: Path) -> None:
    network = official()
    file = save(tmp_path / "x.pth", network.state_dict())
    folder = convert(file, tmp_path / "model", *SMALL, "--drop-classifier")
    model, images = load(folder), some_images(2)
    assert model.num_classes == 0
    actual, expected = model.double()(images.double()), network.double()(images.double())[1]
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_old_files_without_batch_counters_are_converted(tmp_path: Path) -> None:
    network = official()
    weights = {k: v for k, v in network.state_dict().items() if not k.endswith("tracked")}
    file = save(tmp_path / "x.pth", weights)
    assert_same_outputs(convert(file, tmp_path / "model", *SMALL), network)


def test_scores_are_recorded_as_a_run_records_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = draw(
        tmp_path / "market1501", train_ids=2, train_images=2, test_ids=4, gallery_images=2,
        distractors=2, junk=1, progress=False,
    )  # fmt: skip
    file = save(tmp_path / "x.pth", official().state_dict())
    test = ["--dataset", "market1501", "--data-dir", people, "--workers", 0, "--device", "cpu"]
    folder = convert(file, tmp_path / "model", *SMALL, *test, "--trained-on", "msmt17")
    reid = read_reid(f"local-dir:{folder}")
    assert "market1501" in capsys.readouterr().out
    (report,) = evaluate.main([str(folder), *map(str, test), "--output", str(tmp_path / "a.json")])
    assert load_reports(tmp_path / "a.json")[0].metrics == report.metrics
    assert reid["metrics"] == json.loads(json.dumps(report.metrics))
    assert reid["weights"] == report.weights
    assert reid["dataset"]["name"] == "market1501"
    assert reid["also_tested_on"] == []


def test_a_folder_that_holds_something_is_replaced_only_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "x.pth", official().state_dict())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    with pytest.raises(SystemExit):
        convert(file, folder, *SMALL)
    assert f"{folder} is not empty: --force" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    convert(file, folder, *SMALL, "--force")
    assert (folder / "README.md").read_text() == "mine"
    assert load(folder).num_classes == 6


# Files that are something else.


class Thing:
    """What unpickling would have to import."""


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch has better ways, which are not meant here
        torch.jit.script(nn.Linear(2, 2)).save(str(path))


def cut_short(path: Path) -> None:
    save(path, official().state_dict())
    path.write_bytes(path.read_bytes()[:20000])


def cut_short_legacy(path: Path) -> None:
    save(path, official().state_dict(), _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:20000])


def own(**kwargs: Any) -> dict[str, torch.Tensor]:
    return timm.create_model("test_rga_resnet", **kwargs).state_dict()


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    weights = {**official().state_dict(), **changes}
    return {key: value for key, value in weights.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda p: p.write_text("no weights"), "it is no file of torch.save or safetensors"),
        (lambda p: p.write_bytes(b""), "it is empty"),
        (cut_short, "is cut short"),
        (cut_short_legacy, "it is no file of torch.save or safetensors, or is damaged"),
        (script, "is a TorchScript archive"),
        (lambda p: save(p, {"thing": Thing()}), r"more than tensors .*Thing\)"),
        (lambda p: save(p, official()), r"more than tensors .*OfficialNetwork\)"),
        (lambda p: save(p, {}), "holds no weights"),
        (lambda p: save(p, {"state_dict": {}, "epoch": 3}), "holds no weights"),
        (lambda p: save(p, {"epoch": 3}), r"its entries, 1 \(epoch\), are no tensors"),
        (lambda p: save(p, [1, 2]), "holds a list, not a state dict"),
        (lambda p: save(p, torch.ones(3)), "holds a Tensor, not a state dict"),
        (lambda p: save(p, {"G": official().state_dict(), "D": {}}), r"may be in 1 \(G\): save"),
        (lambda p: save(p, timm.create_model("resnet50").state_dict()), "a backbone only"),
        (lambda p: save(p, own()), "a checkpoint of this project already"),
        (lambda p: save(p, {"a.b": torch.ones(3)}), r"not of the paper's code.* 1 \(a\.b\)"),
    ],
    ids=[
        "text", "empty file", "cut short", "cut short legacy", "TorchScript", "object", "module",
        "empty dict", "empty state dict", "no tensors", "list", "tensor", "unknown entry",
        "torchvision", "own", "other",
    ],
)  # fmt: skip
def test_a_file_that_is_something_else_is_called_by_its_name(
    content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.pth"
    content(file)
    with pytest.raises(SystemExit) as ended:
        convert(file, tmp_path / "model", *SMALL)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert re.search(message, error), error
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {
                "backbone.rga_att3.theta_spatial.0.weight": None,
                "feat_bn.weight": None,
                "backbone.rga_att9.x": torch.ones(2),
            },
            [
                r"missing: 2 \(backbone\.rga_att3\.theta_spatial\.0\.weight, feat_bn\.weight\)",
                r"unexpected: 1 \(backbone\.rga_att9\.x\)",
            ],
        ),
        (
            {f"backbone.layer{i}.0.conv{j}.weight": None for i in (1, 2, 3) for j in (1, 2, 3)},
            [r"missing: 9 \(backbone\.layer1\.0\.conv1\.weight, .* and 1 more\)"],
        ),
        (
            {"backbone.rga_att2.gg_spatial.0.weight": torch.ones(36, 577, 1, 1)},
            [r"of another shape: 1 \(backbone\.rga_att2\.gg_spatial\.0\.weight \(36, 577, 1, 1\), "
             r"not \(36, 576, 1, 1\)\)"],
        ),
        ({"feat_bn.bias": torch.full((128,), 0.1)}, [r"feat_bn\.bias of the checkpoint is not 0"]),
        ({"feat_bn.weight": torch.full((128,), torch.nan)}, ["128 values are NaN .*feat_bn.weig"]),
    ],
    ids=["gaps", "many gaps", "shape", "bias", "nan"],
)  # fmt: skip
def test_a_partial_or_changed_checkpoint_is_refused_in_the_names_of_its_code(
    changes: dict[str, Any],
    messages: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = save(tmp_path / "file.pth", {"state_dict": changed(**changes)})
    with pytest.raises(SystemExit):
        convert(file, tmp_path / "model", *SMALL)
    error = capsys.readouterr().err
    for message in messages:
        assert re.search(message, error), error


def test_a_checkpoint_of_another_size_says_which_it_may_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "file.pth", official().state_dict())
    with pytest.raises(SystemExit):
        convert(file, tmp_path / "model", *SMALL[:4])
    error = capsys.readouterr().err
    assert "another size than 256x128" in error
    assert "--img-size 192 96" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "rga_resnet51"], "knows no model 'rga_resnet51'"),
        (["--model", "test_resnet"], "cannot be made"),
        (["--model", "rga_vit_small_patch16"], "has ResNets with attention alone"),
        (["--data-dir", "x"], "--data-dir is for --dataset"),
        (["--dataset", "market1501", "--data-dir", "nowhere"], "nowhere"),
        (["--trained-on", "nobody"], "unknown data set 'nobody'"),
        (["--device", "abacus"], "--device abacus"),
    ],
)
def test_options_that_cannot_work_end_with_a_message(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "file.pth", official().state_dict())
    with pytest.raises(SystemExit):
        convert(file, tmp_path / "model", *options)
    assert message in capsys.readouterr().err


def test_a_file_that_is_not_there_ends_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        convert(tmp_path / "nowhere.pth", tmp_path / "model")
    assert "there is no file" in capsys.readouterr().err
