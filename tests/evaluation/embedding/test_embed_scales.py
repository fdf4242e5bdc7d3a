from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import rga_timm  # noqa: F401 - registers the models
from rga_timm.evaluation import Compute, ModelRecord, Protocol, Report, embed, evaluate
from rga_timm.evaluation.dataset import embed_loader

SIZE = (64, 32)
SCALES = (1.0, 1.5, 0.5)
SIZES = ((64, 32), (96, 48), (32, 16))


def make_loader(n: int = 5, size: tuple[int, int] = SIZE) -> DataLoader:
    images = torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(0))
    targets = torch.stack([torch.arange(n) // 2, torch.arange(n) % 2], dim=1)
    return DataLoader(TensorDataset(images, targets), batch_size=3)


def create(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **options).eval()


def features_of(model: nn.Module, images: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Features of images resized by torchvision, of a model that is set to their size."""
    if hasattr(model, "set_input_size"):
        model = copy.deepcopy(model)
        model.set_input_size(size)
    with torch.no_grad():
        return model(v2.functional.resize(images, list(size), antialias=True)).numpy()


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {}),
        ("test_rga_resnet", {"img_size": SIZE}),
        ("test_vit", {"img_size": SIZE}),
    ],
)
def test_several_scales_give_the_normalised_mean_of_normalised_features(
    name: str, options: dict[str, object], flip: bool
) -> None:
    model, loader = create(name, **options), make_loader()
    images = torch.cat([batch for batch, _ in loader])
    expected = np.zeros(1)
    for size in SIZES:
        features = features_of(model, images, size)
        if flip:
            features = (features + features_of(model, images.flip(-1), size)) / 2
        expected = expected + unit(features)
    found = embed(model, loader, scales=SCALES, flip=flip, progress=False).features.numpy()
    np.testing.assert_allclose(found, unit(expected), rtol=1e-4, atol=1e-5)


def test_one_scale_is_not_normalised() -> None:
    model, loader = create("test_resnet"), make_loader()
    images = torch.cat([batch for batch, _ in loader])
    found = embed(model, loader, scales=[0.5], progress=False).features.numpy()
    np.testing.assert_allclose(found, features_of(model, images, SIZES[2]), rtol=1e-4, atol=1e-5)
    plain = embed(model, loader, progress=False).features
    assert torch.equal(embed(model, loader, scales=[1], progress=False).features, plain)


@pytest.mark.parametrize("name", ["test_rga_resnet", "test_vit"])
def test_the_model_keeps_its_size_and_its_weights(name: str) -> None:
    model = create(name, img_size=SIZE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    embed(model, make_loader(), scales=SCALES, progress=False)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(torch.zeros(1, 3, *SIZE))


def test_models_are_copied_once_and_not_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = create("test_rga_resnet", img_size=SIZE), []
    set_input_size = type(model).set_input_size

    def counted(self: nn.Module, size: tuple[int, int]) -> None:
        sizes.append(tuple(size))
        set_input_size(self, size)

    monkeypatch.setattr(type(model), "set_input_size", counted)
    embed(model, make_loader(12), scales=SCALES, progress=False)
    assert sizes == [*SIZES[1:]]


def test_images_are_resized_to_whole_patches() -> None:
    model, seen = create("test_vit", img_size=SIZE), set()

    class Watched(type(model)):  # type: ignore[misc]
        def forward_features(self, x: Tensor) -> Tensor:
            seen.add(tuple(x.shape[-2:]))
            return super().forward_features(x)

    model.__class__ = Watched
    embed(model, make_loader(), scales=(1.2, 1.6), progress=False)
    assert seen == {(80, 32), (96, 48)}  # of 76.8x38.4 and 102.4x51.2, in patches of 16


def test_a_size_that_a_model_cannot_take_is_told_at_the_first_batch() -> None:
    read = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets in make_loader():
            read.append(len(images))
            yield images, targets

    fixed = create("mixer_s32_224")
    for model, scale, message in (
        (fixed, 1.25, "MlpMixer cannot take images of 80x40, which is scale 1.25: "),
        (Refusing(), 0.01, "Refusing cannot take images of 1x1, which is scale 0.01: too small"),
    ):
        read.clear()
        with pytest.raises(ValueError, match=message):
            embed(model, batches(), scales=(1.0, scale), progress=False)
        assert read == [3]


class Refusing(nn.Module):
    """A model that does not let itself be set to any size."""

    def set_input_size(self, size: tuple[int, int]) -> None:
        raise ValueError("too small")

    def forward_features(self, x: Tensor) -> Tensor:
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x.mean((2, 3))


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0,), (float("nan"),), (float("inf"),)])
def test_scales_that_are_none_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scales are positive numbers, at least one"):
        embed(create("test_resnet"), make_loader(), scales=scales, progress=False)


def test_scales_that_come_to_the_same_size_are_refused() -> None:
    model = create("test_vit", img_size=SIZE)
    with pytest.raises(ValueError, match=r"the scales 1 and 1.05 of 64x32 images are both 64x32"):
        embed(model, make_loader(), scales=(1.0, 1.05), progress=False)


def test_autocast_and_channels_last_go_with_scales() -> None:
    model, loader = create("test_rga_resnet", img_size=SIZE), make_loader()
    full = embed(model, loader, scales=SCALES, progress=False).features
    last = embed(model, loader, scales=SCALES, channels_last=True, progress=False).features
    torch.testing.assert_close(last, full)
    low = embed(model, loader, scales=SCALES, amp_dtype=torch.bfloat16, progress=False).features
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, full, rtol=0.05, atol=0.05)


PROTOCOL = Protocol(SIZE, "bilinear", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def test_the_protocol_hands_scales_on_and_shows_them(tmp_path: Path) -> None:
    model, loader = create("test_resnet"), make_loader()
    protocol = dataclasses.replace(PROTOCOL, scales=SCALES, flip=True)
    assert protocol.summary() == "64x32, embedding, cosine, flip, scales 1 1.5 0.5"
    assert "scale" not in PROTOCOL.summary()
    found = embed_loader(model, loader, protocol, Compute(progress=False))
    one = embed(model, loader, scales=SCALES, flip=True, progress=False)
    torch.testing.assert_close(found.features, one.features, rtol=0, atol=0)
    result = evaluate(one.features, one.pids, one.camids, one.features, one.pids, one.camids)
    report = Report.of(result, ModelRecord("x"), {"name": "x"}, protocol)
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report


def test_reports_from_before_there_were_scales_are_of_one(tmp_path: Path) -> None:
    scores = ("mAP", "mAP_trapezoid", "mINP", "num_queries", "num_valid_queries")
    report = Report("x", {"name": "x"}, PROTOCOL, dict.fromkeys(scores, 1) | {"cmc": [1.0]})
    report.save(tmp_path / "report.json")
    old = json.loads((tmp_path / "report.json").read_text())
    del old["protocol"]["scales"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert Report.load(tmp_path / "old.json") == report
