import logging
import re

import pytest
import timm
import torch
from family_tests import ModelFamilyTests
from random_weights import scramble
from torch import nn


class TestRGAEfficientNet(ModelFamilyTests):
    tiny = "test_rga_efficientnet"
    stages = ("blocks.1", "blocks.2", "blocks.3", "blocks.4")
    variants = ("rga_efficientnet_lite0", "rga_tf_efficientnet_lite0", "rga_efficientnet_b0")
    golden_embedding = (-0.966369, 2.860984, -1.091438, -0.150552, -1.404258, 0.244795)
    golden_logits = (-1.560671, 0.083263, -0.940894, 0.142010, 3.319747)

    def test_last_stride_is_removed_wherever_it_stands(self):
        model = timm.create_model("rga_efficientnet_b0", device="meta")
        strides = [
            {m.stride for m in blocks.modules() if isinstance(m, nn.Conv2d)}
            for blocks in model.blocks
        ]
        assert [(2, 2) in s for s in strides] == [False, True, True, True, False, False, False]
        plain = timm.create_model("efficientnet_b0")
        assert plain.blocks[5][0].conv_dw.stride == (2, 2)


# The EfficientNet-Lite releases: timm's tensors in timm's order under other names.


def name_of_rangilyu(key: str, blocks: dict[tuple[int, int], int]) -> str:
    key = re.sub(r"^(conv_stem|bn1)\.", lambda m: f"stem.{int(m[1] == 'bn1')}.", key)
    key = re.sub(r"^(conv_head|bn2)\.", lambda m: f"head.{int(m[1] == 'bn2')}.", key)
    key = re.sub(r"^classifier\.", "fc.", key)
    return re.sub(r"^(blocks\.\d+\.\d+)\.(\w+)\.", r"\1._\2.", key)


def name_of_tensorflow(key: str, blocks: dict[tuple[int, int], int]) -> str:
    if match := re.match(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(.+)", key):
        return f"_blocks.{blocks[int(match[1]), int(match[2])]}._{match[3]}.{match[4]}"
    names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    part, rest = key.split(".", 1)
    return f"{names.get(part, '_fc')}.{rest}"


# Names; timm's network that the release is; the same of ours.
RELEASES = {
    "rangilyu": (
        name_of_rangilyu,
        {"model_name": "efficientnet_lite0", "bn_eps": 1e-3},
        {"model_name": "rga_efficientnet_lite0", "bn_eps": 1e-3},
    ),
    "tensorflow": (
        name_of_tensorflow,
        {"model_name": "tf_efficientnet_lite0"},
        {"model_name": "rga_tf_efficientnet_lite0.in1k"},
    ),
}


@pytest.fixture(scope="module", params=RELEASES)
def release(request, tmp_path_factory):
    """timm's network with random weights, a file of them as released, and our arguments."""
    name, theirs, ours = RELEASES[request.param]
    plain = scramble(timm.create_model(**theirs))
    # At small variances, eps matters.
    for key, value in plain.state_dict().items():
        if key.endswith("running_var"):
            value.mul_(1e-3)
    plain.eval()
    blocks = [(i, j) for i, stage in enumerate(plain.blocks) for j in range(len(stage))]
    numbers = {pair: n for n, pair in enumerate(blocks)}
    weights = {name(k, numbers): v for k, v in plain.state_dict().items()}
    assert len(weights) == 296
    path = tmp_path_factory.mktemp("lite") / "efficientnet-lite0.pth"
    torch.save(weights, path)
    return plain, path, ours


def load_lite(path, ours, overlay=None, **kwargs) -> nn.Module:
    overlay = {"file": str(path), **(overlay or {})}
    return timm.create_model(pretrained=True, pretrained_cfg_overlay=overlay, **ours, **kwargs)


@pytest.mark.parametrize("num_classes", [0, 1000])
def test_lite_release_gives_the_features_of_its_network(release, caplog, num_classes):
    plain, path, ours = release
    with caplog.at_level(logging.WARNING, logger="rga_timm.models.rga_efficientnet"):
        model = load_lite(path, ours, num_classes=num_classes, relation="none", img_size=(64, 32))
    assert "padding" not in caplog.text
    state = model.state_dict()
    for key, value in plain.state_dict().items():
        if not key.startswith("classifier."):
            assert torch.equal(state[key], value), key
    x = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    expected = plain.forward_intermediates(x, intermediates_only=True)[:-1]
    actual = model.eval().forward_intermediates(x, intermediates_only=True)[:-1]
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


def test_lite_release_in_a_network_of_other_padding_or_norm_is_told(release, caplog):
    _, path, ours = release
    other = {"rga_efficientnet_lite0": "rga_tf_efficientnet_lite0"}.get(
        ours["model_name"], "rga_efficientnet_lite0"
    )
    with caplog.at_level(logging.WARNING, logger="rga_timm.models.rga_efficientnet"):
        load_lite(path, {"model_name": other})
    assert "bn_eps=0.001, pad_type=" in caplog.text


def test_lite_release_brings_its_normalisation(release):
    _, path, ours = release
    before = timm.get_pretrained_cfg(ours["model_name"])
    config = timm.data.resolve_model_data_config(load_lite(path, ours))
    assert config["mean"] == pytest.approx((127 / 255,) * 3)
    assert config["std"] == pytest.approx((128 / 255,) * 3)
    # What the caller says stays.
    model = load_lite(path, ours, overlay={"mean": (0.4,) * 3, "std": (0.4,) * 3})
    assert timm.data.resolve_model_data_config(model)["mean"] == (0.4,) * 3
    # And the variant's own config is left alone.
    assert timm.get_pretrained_cfg(ours["model_name"]) == before


def test_lite_release_serves_other_channels_and_features(release):
    plain, path, ours = release
    model = load_lite(path, ours, in_chans=1)
    expected = plain.conv_stem.weight.sum(1, keepdim=True)
    torch.testing.assert_close(model.conv_stem.weight, expected)
    maps = load_lite(path, ours, features_only=True, img_size=(64, 32))
    assert torch.equal(maps.conv_stem.weight, plain.conv_stem.weight)


def test_lite_release_cut_short_is_refused(release, tmp_path):
    _, path, ours = release
    weights = torch.load(path)
    del weights[list(weights)[100]]
    torch.save(weights, tmp_path / "short.pth")
    with pytest.raises(ValueError, match="not one of"):
        load_lite(tmp_path / "short.pth", ours)


def test_weights_of_another_network_under_such_names_are_refused(release):
    # EfficientNet-PyTorch names its b0 alike, and normalises and pads in its own way.
    _, path, _ = release
    with pytest.raises(ValueError, match="unexpected"):
        load_lite(path, {"model_name": "rga_efficientnet_b0"})
