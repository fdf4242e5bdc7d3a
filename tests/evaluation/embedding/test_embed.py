from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rga_timm.evaluation import Embedder, embed


def make_loader(n: int = 7, batch_size: int = 3) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, 32, 32, generator=generator)
    targets = torch.stack([torch.arange(n) * 10, torch.arange(n) % 2], dim=1)
    return DataLoader(TensorDataset(images, targets), batch_size=batch_size)


def images_of(loader: DataLoader) -> Tensor:
    return torch.cat([images for images, _ in loader])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=5)


class WithNeck(nn.Module):
    """The smallest model with a neck."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.dropout(x)

    def forward_neck(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = x[..., 0].mean(2)  # the left edge, so that a flip changes it
        return pooled, pooled * 2

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        raise AssertionError("the neck must be asked first")


def run(model: nn.Module, loader: Any, **options: Any) -> Any:
    return embed(model, loader, progress=False, **options)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("feature", ["embedding", "pooled"])
def test_timm_models_give_what_their_classifier_takes(
    name: str, num_classes: int, feature: str
) -> None:
    options = {"img_size": 32} if name == "test_vit" else {}
    model = timm.create_model(name, num_classes=num_classes, **options)
    loader = make_loader()
    result = run(model, loader, feature=feature)
    model.eval()
    with torch.no_grad():
        features = model.forward_features(images_of(loader))
        expected = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(result.features, expected)


def test_a_neck_gives_the_feature_before_and_after_it() -> None:
    loader = make_loader()
    edge = images_of(loader)[..., 0].mean(2)
    torch.testing.assert_close(run(WithNeck(), loader, feature="pooled").features, edge)
    torch.testing.assert_close(run(WithNeck(), loader).features, edge * 2)


def test_ids_come_in_the_order_of_the_loader(model: nn.Module) -> None:
    result = run(model, make_loader())
    assert len(result) == 7
    np.testing.assert_array_equal(result.pids, np.arange(7) * 10)
    np.testing.assert_array_equal(result.camids, np.arange(7) % 2)
    assert result.pids.dtype == result.camids.dtype == np.int64
    assert result.features.dtype == torch.float32
    assert not result.features.requires_grad


def test_flip_averages_an_image_and_its_mirror() -> None:
    loader = make_loader()
    images = images_of(loader)
    expected = images[..., 0].mean(2) + images[..., -1].mean(2)
    torch.testing.assert_close(run(WithNeck(), loader, flip=True).features, expected)


def test_flipped_images_embed_alike_with_flip(model: nn.Module) -> None:
    loader = make_loader()
    mirrored = [(images.flip(-1), targets) for images, targets in loader]
    a, b = (run(model, batches, flip=True).features for batches in (loader, mirrored))
    torch.testing.assert_close(a, b)
    assert not torch.allclose(run(model, loader).features, run(model, mirrored).features)


@pytest.mark.parametrize("training", [True, False])
def test_every_module_gets_its_own_mode_back(model: nn.Module, training: bool) -> None:
    model.train(training)
    model.layer1.train(not training)
    before = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, make_loader())
    assert before == {name: module.training for name, module in model.named_modules()}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)  # no BN statistics moved


def test_modes_come_back_after_an_error(model: nn.Module) -> None:
    with pytest.raises(RuntimeError):
        run(model.train(), [(torch.zeros(1, 4, 8, 8), torch.zeros(1, 2))])
    assert model.training


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, timm.utils.ModelEmaV3])
def test_wrapped_models_work(model: nn.Module, wrap: Any) -> None:
    expected = run(model, make_loader()).features
    torch.testing.assert_close(run(wrap(model), make_loader()).features, expected)


def test_autocast_gives_float32_near_full_precision(model: nn.Module) -> None:
    full = run(model, make_loader()).features
    low = run(model, make_loader(), amp_dtype=torch.bfloat16, flip=False).features
    assert low.dtype == torch.float32
    assert not torch.equal(low, full)
    torch.testing.assert_close(low, full, rtol=0.05, atol=0.05)


def test_channels_last_gives_the_same(model: nn.Module) -> None:
    expected = run(model, make_loader()).features
    actual = run(model, make_loader(), channels_last=True).features
    torch.testing.assert_close(actual, expected)


def test_progress_is_shown_if_asked(model: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    embed(model, make_loader(), progress=False)
    assert capsys.readouterr().err == ""
    embed(model, make_loader(), progress=True)
    assert "3/3" in capsys.readouterr().err


def test_feature_maps_are_refused() -> None:
    model = timm.create_model("test_resnet", num_classes=0, global_pool="")
    with pytest.raises(ValueError, match=r"features of shape .* not \(B, D\)"):
        run(model, make_loader())


def test_wrong_arguments_are_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="feature must be one of embedding, pooled, got 'logits'"):
        run(model, make_loader(), feature="logits")
    with pytest.raises(TypeError, match="Linear lacks forward_features"):
        run(nn.Linear(1, 1), make_loader())
    with pytest.raises(ValueError, match="no images"):
        run(model, [])
    for shape in [(2,), (2, 1), (2, 4), (3, 2)]:
        with pytest.raises(ValueError, match=r"targets must be \(2, 2\).*or \(2, 3\)"):
            run(model, [(torch.zeros(2, 3, 32, 32), torch.zeros(shape))])


# Tracklet 7 comes in several batches, in pieces; numbers and persons are in no order.
TRACKLETS = [[5, 1, 7], [5, 1, 7], [2, 4, 3], [5, 1, 7], [2, 4, 3], [9, 1, -5], [5, 1, 7]]


def tracklet_loader(targets: list[list[int]] = TRACKLETS, batch_size: int = 3) -> DataLoader:
    images = images_of(make_loader(len(targets)))
    return DataLoader(TensorDataset(images, torch.tensor(targets)), batch_size=batch_size)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_a_tracklet_has_the_mean_feature_of_its_images(batch_size: int, flip: bool) -> None:
    loader = tracklet_loader(batch_size=batch_size)
    images = run(WithNeck(), make_loader(), flip=flip).features.numpy()
    result = run(WithNeck(), loader, flip=flip)
    # The order is that in which the tracklets first appear.
    assert result.pids.tolist() == [5, 2, 9]
    assert result.camids.tolist() == [1, 4, 1]
    assert len(result) == 3
    members = [[0, 1, 3, 6], [2, 4], [5]]
    expected = np.stack([sum(images[i] for i in rows) / len(rows) for rows in members])
    np.testing.assert_allclose(result.features.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert result.features.dtype == torch.float32
    assert result.pids.dtype == result.camids.dtype == np.int64


def test_batches_of_tracklets_change_nothing_that_can_be_seen() -> None:
    whole = run(WithNeck(), tracklet_loader(batch_size=7)).features
    for batch_size in (1, 2, 5):
        found = run(WithNeck(), tracklet_loader(batch_size=batch_size)).features
        torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-8)


def test_long_features_do_not_count_less_than_short_ones() -> None:
    # Not normalised before the mean: of (1, 0, 0) and (0, 9, 0) it is (0.5, 4.5, 0).
    images = torch.zeros(2, 3, 1, 1)
    images[0, 0], images[1, 1] = 1, 9
    result = run(WithNeck(), [(images, torch.tensor([[1, 1, 0]] * 2))], feature="pooled")
    assert result.features.tolist() == [[0.5, 4.5, 0.0]]


def test_images_of_a_tracklet_do_not_stay_in_memory() -> None:
    alive: list[weakref.ref[Tensor]] = []

    class Watched(WithNeck):
        def forward_neck(self, x: Tensor) -> tuple[Tensor, Tensor]:
            pooled, embedding = super().forward_neck(x)
            assert sum(ref() is not None for ref in alive) <= 1  # at most the batch before
            alive.append(weakref.ref(embedding))
            return pooled, embedding

    run(Watched(), tracklet_loader([[1, 1, 1]] * 12, batch_size=2))
    assert len(alive) == 6


@pytest.mark.parametrize("other", [[6, 1, 7], [5, 2, 7]])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_tracklet_of_several_persons_or_cameras_is_refused(
    other: list[int], batch_size: int
) -> None:
    loader = tracklet_loader([*TRACKLETS[:4], other], batch_size)
    with pytest.raises(ValueError, match="images of tracklet 7 are of several persons or cameras"):
        run(WithNeck(), loader)


def test_images_with_and_without_tracklets_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="some images are of tracklets and others are not"):
        run(WithNeck(), [*make_loader(), *tracklet_loader()])


@pytest.mark.parametrize("feature", ["embedding", "pooled"])
def test_an_embedder_gives_the_feature_normalised(feature: str) -> None:
    loader = make_loader()
    expected = run(WithNeck(), loader, feature=feature).features.numpy()
    expected /= np.sqrt((expected**2).sum(axis=1, keepdims=True))
    embedder = Embedder(nn.DataParallel(WithNeck()).train(), feature)
    np.testing.assert_allclose(embedder(images_of(loader)).numpy(), expected, rtol=1e-5)


def test_an_embedder_refuses_what_embed_refuses(model: nn.Module) -> None:
    with pytest.raises(TypeError, match="not a timm model"):
        Embedder(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="feature must be one of"):
        Embedder(model, "logits")
