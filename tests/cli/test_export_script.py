from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import save_file

import rga_timm
from rga_timm.cli import export as export_onnx
from rga_timm.hub import save_pretrained

MODELS = timm.list_models("test_rga_*")


def run(*arguments: object) -> Path:
    return export_onnx.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a model with random weights; exported once, for that takes seconds."""
    files: dict[str, Path] = {}

    def export(name: str) -> Path:
        if name not in files:
            folder = tmp_path_factory.mktemp(name)
            files[name] = run(name, folder / "reid.onnx", "--no-pretrained")
        return files[name]

    return export


def untrained(name: str, **options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **options).eval()


def noise(count: int) -> list[Image.Image]:
    """Images of a size that no model takes."""
    rng = np.random.default_rng(0)
    shape = (150, 70, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def session_of(path: Path) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, session.get_modelmeta().custom_metadata_map


def preprocess(images: list[Image.Image], metadata: dict[str, str]) -> np.ndarray:
    """As a deployment would, which has nothing but the file."""
    assert metadata["color_order"] == "RGB"
    assert metadata["resize"] == "squash"
    _, height, width = json.loads(metadata["input_size"])
    resampling = Image.Resampling[metadata["interpolation"].upper()]
    pixels = np.stack([np.asarray(image.resize((width, height), resampling)) for image in images])
    mean, std = json.loads(metadata["mean"]), json.loads(metadata["std"])
    return ((pixels / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)


def by_hand(model: torch.nn.Module, images: list[Image.Image], feature: str) -> np.ndarray:
    """Normalised features, through timm's own transform."""
    config = timm.data.resolve_model_data_config(model) | {"crop_mode": "squash", "crop_pct": 1.0}
    config["input_size"] = (3, *getattr(model, "img_size", config["input_size"][1:]))
    transform = timm.data.create_transform(**config)
    with torch.no_grad():
        features = model.forward_features(torch.stack([transform(image) for image in images]))
        if feature == "pre_logits":
            vectors = model.forward_head(features, pre_logits=True).numpy()
        else:
            pooled, embedding = model.forward_neck(features)
            vectors = {"pooled": pooled, "embedding": embedding}[feature].numpy()
    return vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True))


def assert_gives(path: Path, model: torch.nn.Module, feature: str, counts: tuple[int, ...]) -> None:
    session, metadata = session_of(path)
    assert metadata["feature"] == feature
    images = noise(max(counts))
    expected = by_hand(model, images, feature)
    # The images can be told apart, or nearly anything would pass.
    assert np.abs(expected[0] - expected[1:]).max() > 1e-3
    for count in counts:
        (embedding,) = session.run(None, {"images": preprocess(images[:count], metadata)})
        np.testing.assert_allclose(embedding, expected[:count], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_file_gives_the_models_embedding_for_any_batch(
    name: str, exported: Callable[[str], Path]
) -> None:
    assert_gives(exported(name), untrained(name), "embedding", (1, 2, 3, 17))


@pytest.mark.parametrize("name", MODELS)
def test_the_file_is_one_valid_file_that_tells_nothing_of_the_machine(
    name: str, exported: Callable[[str], Path]
) -> None:
    path = exported(name)
    assert list(path.parent.iterdir()) == [path]
    onnx.checker.check_model(onnx.load(path, load_external_data=False), full_check=True)
    session, _ = session_of(path)
    (images,), (embedding,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type) == ("images", "tensor(float)")
    assert (embedding.name, embedding.type) == ("embedding", "tensor(float)")
    assert isinstance(images.shape[0], str)
    assert embedding.shape[0] == images.shape[0]
    content = path.read_bytes()
    for folder in (sys.prefix, rga_timm.__path__[0], path.parent):
        assert str(folder).encode() not in content


def test_metadata_says_what_a_deployment_must_know(exported: Callable[[str], Path]) -> None:
    _, metadata = session_of(exported("test_rga_resnet"))
    assert metadata == {
        "model": "test_rga_resnet",
        "architecture": "test_rga_resnet",
        "model_kwargs": "{}",
        "weights": "untrained",
        "input_size": "[3, 64, 32]",
        "color_order": "RGB",
        "resize": "squash",
        "interpolation": "bilinear",
        "antialias": "true",
        "value_range": "[0, 1]",
        "mean": "[0.485, 0.456, 0.406]",
        "std": "[0.229, 0.224, 0.225]",
        "feature": "embedding",
        "feature_description": "after the BN neck",
        "normalized": "true",
        "similarity": "dot product",
        "rga_timm_version": rga_timm.__version__,
        "timm_version": timm.__version__,
        "torch_version": torch.__version__,
    }


def test_a_folders_model_at_another_size_gives_its_feature_before_the_neck(tmp_path: Path) -> None:
    model = untrained("test_rga_resnet", relation="s").train()
    with torch.no_grad():
        for _ in range(3):  # statistics for the neck, without which both features are the same
            model(torch.randn(8, 3, 64, 32) + 1)
    folder = save_pretrained(model, tmp_path / "model")
    options = ("--img-size", 96, 48, "--feature", "pooled")
    path = run(f"local-dir:{folder}", tmp_path / "reid.onnx", *options)
    model.set_input_size((96, 48))
    assert_gives(path, model.eval(), "pooled", (1, 3))
    _, metadata = session_of(path)
    assert metadata["input_size"] == "[3, 96, 48]"
    assert metadata["feature_description"] == "before the BN neck"
    assert metadata["architecture"] == "test_rga_resnet"
    assert metadata["weights"] == f"local-dir:{folder}"


def test_a_plain_timm_model_with_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=7).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    options = ("--checkpoint", tmp_path / "weights.safetensors", "--opset", 19)
    path = run("test_resnet", tmp_path / "reid.onnx", *options)
    assert_gives(path, model, "pre_logits", (1, 2))
    graph = onnx.load(path)
    assert [opset.version for opset in graph.opset_import if not opset.domain] == [19]
    assert 7 not in {dim for tensor in graph.graph.initializer for dim in tensor.dims}
    _, metadata = session_of(path)
    assert metadata["weights"] == str(tmp_path / "weights.safetensors")
    assert metadata["feature_description"] == "what the classifier takes"


@pytest.mark.parametrize(
    "spoil", [lambda x: x + 0.05, lambda x: x * np.nan], ids=["other weights", "not a number"]
)
def test_a_file_that_disagrees_with_the_model_is_not_kept(
    spoil: Callable[[np.ndarray], np.ndarray],
    exported: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoilt = onnx.load(exported("test_rga_resnet"))
    weight = max(spoilt.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    values = spoil(numpy_helper.to_array(weight)).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    monkeypatch.setattr(
        export_onnx, "export", lambda _embedder, _size, path, *_: onnx.save(spoilt, path)
    )
    (tmp_path / "before.onnx").write_bytes(b"an older file")
    for name in ("new.onnx", "before.onnx"):
        with pytest.raises(SystemExit, match="disagree") as stopped:
            run("test_rga_resnet", tmp_path / name, "--no-pretrained")
        assert isinstance(stopped.value.code, str)  # printed, and the exit status is 1
        assert f"{name} was not written" in stopped.value.code
    assert [path.name for path in tmp_path.iterdir()] == ["before.onnx"]
    assert (tmp_path / "before.onnx").read_bytes() == b"an older file"


@pytest.mark.parametrize(
    ("difference", "similarity", "passes"),
    [
        (0.01, 1, True),
        (0.03, 1, False),
        (0.01, 0.97, False),
        (np.nan, 1, False),
        (0, np.nan, False),
    ],
)
def test_differences_pass_up_to_the_tolerance(
    difference: float,
    similarity: float,
    passes: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        export_onnx, "export", lambda _embedder, _size, path, *_: path.write_bytes(b"graph")
    )
    monkeypatch.setattr(export_onnx, "compare", lambda *_: (difference, similarity))
    arguments = ("test_rga_resnet", tmp_path / "reid.onnx", "--no-pretrained", "--tolerance", 0.02)
    if passes:
        assert run(*arguments).read_bytes() == b"graph"
    else:
        with pytest.raises(SystemExit, match="disagree"):
            run(*arguments)
        assert not list(tmp_path.iterdir())


def test_missing_packages_are_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit):
        run("test_rga_resnet", tmp_path / "reid.onnx", "--no-pretrained")
    message = capsys.readouterr().err
    assert "onnxruntime, onnxscript not installed: pip install 'rga-timm[export]'" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_model", "x.onnx"], "timm knows no model 'no_such_model'"),
        (["test_rga_resnet", "x.onnx"], "test_rga_resnet has no weights of its own"),
        (["test_rga_resnet", "x.pt", "--no-pretrained"], "must end in .onnx, not x.pt"),
        (["test_rga_resnet", "no_such/x.onnx", "--no-pretrained"], "there is no folder no_such"),
        (["test_resnet", "x.onnx", "--opset", "17"], "--opset: must be at least 18"),
        (["test_resnet", "x.onnx", "--tolerance", "nan"], "--tolerance: must be a finite number"),
    ],
)
def test_bad_options_end_before_any_work(
    no_model_is_made: None,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err


def test_models_of_other_than_three_channels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--no-pretrained", "--model-kwargs", "in_chans=1")
    with pytest.raises(SystemExit):
        run("test_rga_resnet", tmp_path / "reid.onnx", *options)
    assert "takes images of 1 channels" in capsys.readouterr().err
