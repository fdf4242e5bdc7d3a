import logging

import numpy as np
import pytest
import timm
import torch
from official_network import OfficialNetwork, assert_parity
from random_weights import scramble, settle
from torch import nn

import rga_timm  # noqa: F401 - registers the models
from rga_timm.hub import save_pretrained
from rga_timm.layers import resample_grid_weight

# Small, but with N/8 and C/8 of 7 and more: the paper's code knows no smaller widths.
SIZE = (192, 96)
CHANNELS = (16, 20, 24, 32)


def some_images(count: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def images():
    return some_images(2)


def official(num_classes: int = 6, **kwargs) -> nn.Module:
    network = scramble(OfficialNetwork(num_classes, CHANNELS, size=SIZE, **kwargs))
    network.feat_bn.bias.data.zero_()
    return settle(network, some_images(6, seed=4))


def load(path, name: str = "test_rga_resnet", size=SIZE, **kwargs) -> nn.Module:
    overlay = {"file": str(path), "input_size": (3, *size), **kwargs.pop("overlay", {})}
    kwargs = {"native_size": size, "channels": CHANNELS, **kwargs}
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)
    return model.eval()


def save(path, weights):
    torch.save(weights, path)
    return path


# Checkpoints of the paper's own code.


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("relation", "kinds"),
    [("sc", {}), ("s", {"channel": False}), ("c", {"spatial": False})],
)
def test_official_checkpoint_gives_the_same_outputs(tmp_path, images, relation, kinds, prefix):
    network = official(**kinds)
    weights = {prefix + k: v for k, v in network.state_dict().items()}
    path = save(tmp_path / "checkpoint_3.pth.tar", {"state_dict": weights, "epoch": 3})
    model = load(path, relation=relation, num_classes=6, overlay={"num_classes": 6})
    assert_parity(model, network, images)


def test_official_checkpoint_with_classes_in_the_overlay_alone(tmp_path, images):
    network = official()
    path = save(tmp_path / "model.pth", {"state_dict": network.state_dict(), "epoch": 3})
    assert_parity(load(path, overlay={"num_classes": 6}), network, images)


def test_official_checkpoint_as_feature_extractor(tmp_path, images):
    network = official()
    path = save(tmp_path / "model.pth", {"state_dict": network.state_dict()})
    actual, expected = load(path).double()(images.double()), network.double()(images.double())[1]
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_official_checkpoint_with_two_halves_swapped_is_told_apart(tmp_path, images):
    network = official()
    weights = dict(network.state_dict())
    for stage in range(1, 5):
        for kind in ("spatial", "channel"):
            key = f"backbone.rga_att{stage}.gg_{kind}.0.weight"
            weights[key] = weights[key].roll(weights[key].shape[1] // 2, dims=1)
    model = load(save(tmp_path / "model.pth", weights))
    assert (model(images) - network(images)[1]).abs().max() > 1e-3


def test_official_checkpoint_with_a_neck_bias_is_refused(tmp_path):
    network = official()
    network.feat_bn.bias.data[2] = 0.1
    path = save(tmp_path / "model.pth", network.state_dict())
    with pytest.raises(ValueError, match=r"feat_bn\.bias"):
        load(path)


@pytest.mark.parametrize(
    "key",
    [
        "backbone.layer2.0.conv2.weight",
        "backbone.rga_att3.theta_spatial.0.weight",
        "backbone.rga_att3.phi_spatial.0.weight",
        "backbone.rga_att3.gx_channel.1.running_var",
        "backbone.rga_att1.W_channel.3.weight",
        "feat_bn.weight",
    ],
)
def test_official_checkpoint_with_a_gap_is_refused(tmp_path, key):
    weights = dict(official().state_dict())
    del weights[key]
    with pytest.raises(ValueError, match=r"missing|lacks"):
        load(save(tmp_path / "model.pth", weights))


@pytest.mark.parametrize(
    "key",
    [
        "backbone.rga_att3.theta_spatial.0.bias",
        "backbone.rga_att3.phi_spatial.0.bias",
        "backbone.rga_att3.gx_spatial.4.weight",
        "backbone.rga_att2.W_spatial.7.weight",
        "backbone.rga_att2.other_spatial.0.weight",
        "backbone.rga_att5.theta_spatial.0.weight",
        "backbone.layer9.0.conv1.weight",
        "feat_bn.other",
    ],
)
def test_official_checkpoint_with_an_unexpected_weight_is_refused(tmp_path, key):
    weights = {**official().state_dict(), key: torch.ones(3)}
    with pytest.raises(ValueError, match=r"unexpected|lacks"):
        load(save(tmp_path / "model.pth", weights))


def test_official_checkpoint_with_a_longer_embedding_is_refused(tmp_path):
    weights = dict(official().state_dict())
    for part in ("theta", "phi", "gx"):
        key = f"backbone.rga_att3.{part}_spatial.0.weight"
        weights[key.replace(".0.weight", ".3.weight")] = torch.zeros_like(weights[key])
    with pytest.raises(ValueError, match="unexpected"):
        load(save(tmp_path / "model.pth", weights))


def test_official_checkpoint_of_another_image_size_names_what_to_pass(tmp_path):
    path = save(tmp_path / "model.pth", official().state_dict())
    with pytest.raises(ValueError, match=r"(?s)of another shape.*native_size.*input_size"):
        load(path, size=(64, 32))


# Checkpoints of the backbone.


def resnet_weights() -> dict[str, torch.Tensor]:
    resnet = timm.models.ResNet(
        timm.models.resnet.Bottleneck, (1, 1, 1, 1), channels=CHANNELS, num_classes=10
    )
    return dict(scramble(resnet).state_dict())


@pytest.mark.parametrize("num_classes", [0, 10, 7])
def test_plain_resnet_checkpoint_fills_the_backbone_alone(tmp_path, caplog, num_classes):
    weights = resnet_weights()
    path = save(tmp_path / "resnet.pth", weights)
    with caplog.at_level(logging.WARNING):
        model = load(path, num_classes=num_classes)
    assert any(
        r.levelno == logging.WARNING and "backbone alone" in r.getMessage() for r in caplog.records
    )
    state = model.state_dict()
    for key, value in weights.items():
        if not key.startswith("fc."):
            assert torch.equal(state[key], value), key
    assert torch.equal(model.neck.weight, torch.ones_like(model.neck.weight))
    assert set(state) - set(weights) == {
        k for k in state if ".rga." in k or k.startswith("neck.") or (k == "fc.weight")
    } - set(weights)
    if num_classes:
        assert model.get_classifier().weight.abs().max() < 0.01  # fresh, not ImageNet's


def test_old_checkpoint_without_batch_counters_loads(tmp_path, caplog):
    # Torchvision's first ResNet files are older than num_batches_tracked.
    weights = {k: v for k, v in resnet_weights().items() if not k.endswith("tracked")}
    with caplog.at_level(logging.WARNING):
        model = load(save(tmp_path / "resnet.pth", weights))
    assert torch.equal(model.layer3[0].conv2.weight, weights["layer3.0.conv2.weight"])
    assert model.bn1.num_batches_tracked == 0
    assert "backbone alone" in caplog.text


@pytest.mark.parametrize("num_classes", [0, 7])
def test_backbone_checkpoint_with_a_gap_is_refused(tmp_path, num_classes):
    weights = resnet_weights()
    del weights["layer3.0.bn2.running_mean"]
    with pytest.raises(ValueError, match=r"missing: 1 \(layer3\.0\.bn2\.running_mean\)"):
        load(save(tmp_path / "resnet.pth", weights), num_classes=num_classes)


@pytest.mark.parametrize("num_classes", [0, 7])
def test_backbone_checkpoint_with_more_than_the_backbone_is_refused(tmp_path, num_classes):
    weights = {**resnet_weights(), "layer3.1.conv1.weight": torch.ones(3)}
    with pytest.raises(ValueError, match=r"unexpected: 1 \(layer3\.1\.conv1\.weight\)"):
        load(save(tmp_path / "resnet.pth", weights), num_classes=num_classes)


@pytest.mark.parametrize("chans", [1, 4])
def test_backbone_weights_of_three_channels_serve_others(tmp_path, chans):
    weights = resnet_weights()
    model = load(save(tmp_path / "resnet.pth", weights), in_chans=chans)
    first = model.conv1.weight
    assert first.shape[1] == chans
    if chans == 1:
        torch.testing.assert_close(first, weights["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(model.layer1[0].conv1.weight, weights["layer1.0.conv1.weight"])
    assert model(torch.randn(2, chans, *SIZE)).isfinite().all()


# Own checkpoints.


def own(**kwargs) -> nn.Module:
    kwargs = {"img_size": SIZE, "native_size": SIZE, "channels": CHANNELS, **kwargs}
    model = scramble(timm.create_model("test_rga_resnet", **kwargs))
    return settle(model, some_images(6, seed=4))


@pytest.mark.parametrize("wrapping", ["plain", "state_dict", "model", "net", "flat", "module."])
def test_own_checkpoint_in_any_wrapping(tmp_path, images, wrapping):
    model = own(num_classes=6)
    weights = model.state_dict()
    if wrapping in ("state_dict", "model", "net"):
        weights = {wrapping: weights, "epoch": 4, "score": np.float64(0.5)}
    elif wrapping == "flat":
        weights = {**weights, "epoch": 4, "score": np.float64(0.5)}
    elif wrapping == "module.":
        weights = {f"module.{k}": v for k, v in weights.items()}
    path = save(tmp_path / "model.pth", weights)
    loaded = load(path, num_classes=6, overlay={"num_classes": 6})
    assert torch.equal(loaded(images), model(images))
    assert "state_dict" not in loaded.pretrained_cfg


def test_classifier_that_fits_is_kept_whatever_the_config_says(tmp_path, images):
    model = own(num_classes=6)
    path = save(tmp_path / "model.pth", model.state_dict())
    assert torch.equal(load(path, num_classes=6)(images), model(images))
    assert timm.get_pretrained_cfg("test_rga_resnet").num_classes == 0


@pytest.mark.parametrize("declared", [None, 6, 9])
@pytest.mark.parametrize("num_classes", [0, 9])
def test_classifier_of_other_identities_is_dropped_and_said(
    tmp_path, images, caplog, num_classes, declared
):
    model = own(num_classes=6)
    path = save(tmp_path / "model.pth", model.state_dict())
    overlay = {} if declared is None else {"num_classes": declared}
    with caplog.at_level(logging.INFO):
        loaded = load(path, num_classes=num_classes, overlay=overlay)
    assert "6 identities" in caplog.text
    features = loaded.forward_features(images)
    expected = model.forward_head(model.forward_features(images), pre_logits=True)
    assert torch.equal(loaded.forward_head(features, pre_logits=True), expected)
    if num_classes:
        assert loaded(images).shape == (2, 9)
        assert loaded.get_classifier().weight.abs().max() < 0.01


def test_features_only_loads_an_own_checkpoint(tmp_path, images):
    model = own(num_classes=6)
    path = save(tmp_path / "model.pth", model.state_dict())
    maps = load(path, features_only=True)(images)
    for a, b in zip(maps, model.forward_intermediates(images)[1], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("relation", ["s", "c", "sc"])
def test_own_checkpoint_at_another_image_size_is_resampled(tmp_path, caplog, relation):
    model = own(num_classes=6, relation=relation)
    path = save(tmp_path / "model.pth", model.state_dict())
    with caplog.at_level(logging.INFO):
        loaded = load(path, num_classes=6, img_size=(96, 80), relation=relation)
    assert "192x96 to 96x80" in caplog.text
    assert loaded.img_size == (96, 80)
    assert loaded(torch.randn(2, 3, 96, 80)).isfinite().all()
    model.set_input_size((96, 80))  # the same by another way
    for (key, a), b in zip(loaded.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    if relation != "c":
        weight = own(relation=relation).layer2.rga.spatial.relation.weight.flatten(1)
        resampled = resample_grid_weight(weight, (24, 12), (12, 10))
        assert torch.equal(loaded.layer2.rga.spatial.relation.weight.flatten(1), resampled)


def test_checkpoint_of_another_native_size_is_refused_with_the_remedy(tmp_path):
    path = save(tmp_path / "model.pth", own().state_dict())
    with pytest.raises(ValueError, match=r"(?s)of another shape.*native_size"):
        load(path, native_size=(64, 32))


@pytest.mark.parametrize(("ours", "theirs"), [("s", "sc"), ("sc", "s"), ("none", "c"), ("c", "s")])
def test_checkpoint_of_another_relation_is_refused_with_the_remedy(tmp_path, ours, theirs):
    path = save(tmp_path / "model.pth", own(relation=theirs).state_dict())
    with pytest.raises(ValueError, match=r"(?s)(missing|unexpected).*relation"):
        load(path, relation=ours)


def test_baseline_checkpoint_does_not_pass_for_a_trained_attention(tmp_path):
    # It has a neck, so it is a re-id model: its attention was not trained, it never was there.
    path = save(tmp_path / "model.pth", own(relation="none").state_dict())
    with pytest.raises(ValueError, match=r"missing: .*rga"):
        load(path, relation="sc")


def test_file_without_weights_is_refused(tmp_path):
    path = save(tmp_path / "model.pth", {"state_dict": {}})
    with pytest.raises(ValueError, match=r"holds no weights .*, 1 \(state_dict\), are no tensors"):
        load(path)


def test_loading_leaves_the_callers_dictionary_alone():
    model = own(num_classes=6)
    weights = dict(model.state_dict())
    keys = set(weights)
    timm.create_model(
        "test_rga_resnet",
        pretrained=True,
        img_size=SIZE,
        channels=CHANNELS,
        native_size=SIZE,
        num_classes=9,
        pretrained_cfg_overlay={"state_dict": weights, "input_size": (3, *SIZE)},
    )
    assert set(weights) == keys


def test_own_checkpoint_loads_without_pooling(tmp_path):
    model = timm.create_model("test_rga_resnet", num_classes=5).eval()
    folder = save_pretrained(model, tmp_path)
    unpooled = timm.create_model(
        f"local-dir:{folder}", pretrained=True, num_classes=0, global_pool=""
    ).eval()
    x = torch.randn(1, 3, 64, 32)
    torch.testing.assert_close(unpooled(x), model.forward_features(x), rtol=0, atol=0)
