import re

import pytest
import timm
import torch
from family_tests import ModelFamilyTests
from random_weights import scramble, settle
from torch import nn


class TestRGAEfficientNet(ModelFamilyTests):
    tiny = "test_rga_efficientnet"
    stages = ("blocks.1", "blocks.2", "blocks.3", "blocks.4")
    variants = ("rga_efficientnet_lite0", "rga_efficientnet_b0")
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


# RangiLyu's EfficientNet-Lite release: the same tensors in the same order under other names.


def lite_name(key: str, numbers: dict[tuple[int, int], int]) -> str:
    """A name of that release for one of timm's."""
    if match := re.match(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(.+)", key):
        block = numbers[int(match[1]), int(match[2])]
        return f"_blocks.{block}._{match[3]}.{match[4]}"
    names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    part, rest = key.split(".", 1)
    return f"{names.get(part, '_fc')}.{rest}"


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    backbone = scramble(timm.create_model("efficientnet_lite0"))
    images = torch.randn(8, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    return settle(backbone, images)


@pytest.fixture
def lite_file(plain, tmp_path):
    blocks = [(i, j) for i, stage in enumerate(plain.blocks) for j in range(len(stage))]
    numbers = {pair: n for n, pair in enumerate(blocks)}
    weights = {lite_name(k, numbers): v for k, v in plain.state_dict().items()}
    assert len(weights) == 296
    torch.save(weights, tmp_path / "efficientnet-lite0.pth")
    return tmp_path / "efficientnet-lite0.pth"


def load_lite(path, name="rga_efficientnet_lite0", overlay=None, **kwargs) -> nn.Module:
    overlay = {"file": str(path), **(overlay or {})}
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)


@pytest.mark.parametrize("num_classes", [0, 5, 1000])
def test_lite_release_gives_the_backbone_of_timm(plain, lite_file, num_classes):
    model = load_lite(lite_file, num_classes=num_classes).eval()
    state = model.state_dict()
    for key, value in plain.state_dict().items():
        if not key.startswith("classifier."):
            assert torch.equal(state[key], value), key


def test_lite_release_brings_its_normalisation(lite_file):
    model = load_lite(lite_file)
    config = timm.data.resolve_model_data_config(model)
    assert config["mean"] == pytest.approx((127 / 255,) * 3)
    assert config["std"] == pytest.approx((128 / 255,) * 3)
    # What the caller says stays.
    model = load_lite(lite_file, overlay={"mean": (0.5,) * 3, "std": (0.5,) * 3})
    assert timm.data.resolve_model_data_config(model)["mean"] == (0.5,) * 3
    # And the variant's own config is left alone.
    assert timm.get_pretrained_cfg("rga_efficientnet_lite0").mean[0] == 0.485


def test_lite_release_serves_other_channels_and_features(plain, lite_file):
    model = load_lite(lite_file, in_chans=1)
    expected = plain.conv_stem.weight.sum(1, keepdim=True)
    torch.testing.assert_close(model.conv_stem.weight, expected)
    maps = load_lite(lite_file, features_only=True, img_size=(64, 32))
    assert torch.equal(maps.conv_stem.weight, plain.conv_stem.weight)


def test_lite_release_of_another_variant_is_refused(lite_file):
    with pytest.raises(ValueError, match="not one of efficientnet_b0"):
        load_lite(lite_file, name="rga_efficientnet_b0")
