from typing import ClassVar

import pytest
import timm
import torch
from family_tests import ModelFamilyTests
from random_weights import scramble
from timm.layers import BlurPool2d
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

import rga_timm
from rga_timm.layers import RGA
from rga_timm.models import RGAResNet
from rga_timm.models._create import make_rga
from rga_timm.models._rga import RGAConfig


class TestRGAResNet(ModelFamilyTests):
    tiny = "test_rga_resnet"
    small: ClassVar = {"layers": (1, 1, 1, 1), "channels": (8, 12, 16, 24)}
    stages = ("layer1", "layer2", "layer3", "layer4")
    variants = (
        "rga_resnet18",
        "rga_resnet34",
        "rga_resnet50",
        "rga_resnet101",
        "rga_resnet152",
        "rga_resnext50_32x4d",
        "rgas_resnet50",
        "rgac_resnet50",
    )
    golden_embedding = (-0.876111, -3.055182, -0.269410, 0.047506, -1.815256, -1.310291)
    golden_logits = (-1.289877, -0.944461, -0.276900, -0.945656, 1.235458)

    def test_last_stride_is_removed_not_dilated(self):
        model = timm.create_model("rga_resnet50", device="meta")
        convs = [m for m in model.layer4.modules() if isinstance(m, nn.Conv2d)]
        assert {m.stride for m in convs} == {(1, 1)}
        assert {m.dilation for m in convs} == {(1, 1)}
        assert model.layer3[0].conv2.stride == (2, 2)
        assert model.feature_info[-1]["reduction"] == 16

    def test_baseline_equals_timm_resnet_without_last_stride(self):
        model = self.make(relation="none")
        assert not any(isinstance(m, RGA) for m in model.modules())
        resnet = ResNet(Bottleneck, (1, 1, 1, 1), channels=(8, 12, 16, 24), num_classes=0).eval()
        resnet.layer4[0].conv2.stride = (1, 1)
        resnet.layer4[0].downsample[0].stride = (1, 1)
        weights = {k: v for k, v in model.state_dict().items() if not k.startswith("neck.")}
        resnet.load_state_dict(weights)
        x = self.images()
        expected = resnet.forward_features(x)
        assert expected.shape[2:] == (4, 2)
        assert torch.equal(model.forward_features(x), expected)

    @pytest.mark.parametrize(
        ("name", "relation"),
        [("rga_resnet50", "sc"), ("rgas_resnet50", "s"), ("rgac_resnet50", "c")],
    )
    def test_prefix_of_the_name_is_the_relation(self, name, relation):
        model = timm.create_model(name, device="meta")
        assert {m.relation for m in model.modules() if isinstance(m, RGA)} == {relation}
        assert model.relation == relation

    def test_variants_run_in_training(self):
        # The one real variant that is quick enough: basic blocks, at a quarter of the size.
        model = scramble(timm.create_model("rga_resnet18", num_classes=7, img_size=(64, 32)))
        logits = model.train()(self.images(4))
        logits.sum().backward()
        assert logits.shape == (4, 7)
        assert model.layer1.rga.spatial.relation.weight.shape == (256, 2 * 16 * 8, 1, 1)

    def test_features_through_timms_output_stride_keep_their_map(self):
        model = self.make(output_stride=16)
        assert model.forward_features(self.images()).shape[2:] == (4, 2)
        assert model.feature_info[-1]["reduction"] == 16

    def test_last_stride_is_removed_from_a_pooling_shortcut_too(self):
        model = self.make(avg_down=True)  # ResNet-D
        assert model.forward_features(self.images()).shape[2:] == (4, 2)

    def test_last_stride_that_is_no_convolutions_is_refused(self):
        with pytest.raises(ValueError, match="BlurPool2d"):
            timm.create_model(self.tiny, aa_layer=BlurPool2d)


@pytest.mark.parametrize("name", rga_timm.models.__all__)
def test_class_that_is_built_directly_says_what_to_use(name):
    with pytest.raises(
        TypeError, match=rf"{name} cannot be built directly: use timm\.create_model"
    ):
        getattr(rga_timm.models, name)(num_classes=3)


def test_family_that_is_not_of_the_backbone_is_refused():
    with pytest.raises(ValueError, match="a EfficientNet cannot become a RGAResNet"):
        make_rga(RGAResNet, "test_efficientnet", img_size=64, native_size=64)


def test_config_checks_its_values():
    assert RGAConfig("resnet18", img_size=64).img_size == (64, 64)
    for bad in (
        {"relation": "x"},
        {"reduction": 0},
        {"num_classes": -1},
        {"native_size": (1, 2, 3)},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            RGAConfig("resnet18", **bad)
