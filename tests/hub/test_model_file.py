from __future__ import annotations

from pathlib import Path

import onnx
import openvino
import pytest
import timm
import torch
from embed_runs import evaluate

from rga_timm.cli import export
from rga_timm.evaluation import Embedder, hash_weights
from rga_timm.hub.model_file import ModelFile
from rga_timm.hub.model_source import create_model

NAME = "test_rga_resnet.pedestrians"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.main([NAME, str(tmp_path_factory.mktemp("exported") / "reid.onnx")])


@pytest.fixture(scope="module")
def strange(exported: Path) -> dict[str, Path]:
    """The network in other files: BGR, pixels in 0 ... 255, a batch of two, no metadata."""
    preprocessing = timm.create_model(NAME, pretrained=True).pretrained_cfg
    mean, std = (torch.tensor(preprocessing[key]).numpy() for key in ("mean", "std"))
    network = openvino.convert_model(exported)
    height, width = preprocessing["input_size"][1:]
    network.reshape([2, 3, height, width])
    steps = openvino.preprocess.PrePostProcessor(network)
    steps.input().tensor().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().reverse_channels().mean((255 * mean).tolist())
    steps.input().preprocess().scale((255 * std).tolist())
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    xml = exported.with_name("strange.xml")
    openvino.save_model(steps.build(), xml, compress_to_fp16=False)
    plain = onnx.load(exported)
    del plain.metadata_props[:]
    onnx.save(plain, exported.with_name("plain.onnx"))
    return {"xml": xml, "onnx": exported.with_name("plain.onnx")}


def expected(images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return Embedder(timm.create_model(NAME, pretrained=True))(images)


def test_an_exported_file_is_the_model_with_its_preprocessing(exported: Path) -> None:
    model, original = create_model(str(exported)), timm.create_model(NAME, pretrained=True)
    for key in ("input_size", "mean", "std", "interpolation"):
        assert model.pretrained_cfg[key] == original.pretrained_cfg[key]
    images = torch.randn(3, *model.pretrained_cfg["input_size"])
    torch.testing.assert_close(model(images), expected(images), atol=1e-5, rtol=1e-4)
    assert model.num_features == original.num_features


def test_an_openvino_file_is_fed_as_its_options_say(strange: dict[str, Path]) -> None:
    own = timm.create_model(NAME, pretrained=True).pretrained_cfg
    pixels = torch.rand(3, *own["input_size"])  # not a multiple of the batch of two
    model = ModelFile(strange["xml"], std=[1 / 255] * 3, channel_order="bgr")
    assert model.pretrained_cfg["input_size"] == own["input_size"]
    mean, std = (torch.tensor(own[key])[:, None, None] for key in ("mean", "std"))
    found = model(pixels * 255)
    torch.testing.assert_close(found, expected((pixels - mean) / std), atol=1e-4, rtol=1e-3)


def test_files_of_different_networks_have_different_hashes(strange: dict[str, Path]) -> None:
    hashes = {hash_weights(ModelFile(file, img_size=(64, 32))) for file in strange.values()}
    assert len(hashes) == 2


def test_evaluate_scores_a_file_as_its_model(exported: Path, people: Path) -> None:
    data = ("--dataset", "market1501", "--data-dir", people)
    of_file, of_model = (evaluate(name, *data).scores for name in (exported, NAME))
    assert of_file == pytest.approx(of_model, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": (96, 48)}, "takes images of 64x32 only"),
        ({"channel_order": "rbg"}, "rgb or bgr, not 'rbg'"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(
    strange: dict[str, Path], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ModelFile(strange["xml"], **options)  # type: ignore[arg-type]


def test_a_file_that_lacks_or_is_no_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*reid\.onnx"):
        ModelFile(tmp_path / "reid.onnx")
    for name in ("text.onnx", "text.xml", "text.bin"):
        (tmp_path / name).write_text("<html>")
    for name in ("text.onnx", "text.xml"):
        with pytest.raises(ValueError, match=f"{name} cannot be opened"):
            ModelFile(tmp_path / name)
    (tmp_path / "text.bin").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*text\.bin"):
        ModelFile(tmp_path / "text.xml")


def test_a_file_is_not_trained(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rga_timm.cli import finetune

    with pytest.raises(SystemExit):
        finetune.main(["--model", str(exported)])
    assert "cannot be trained" in capsys.readouterr().err
