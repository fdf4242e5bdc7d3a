from typing import ClassVar

import timm
from family_tests import ModelFamilyTests
from torch import nn


class TestRGARegNet(ModelFamilyTests):
    tiny = "test_rga_regnet"
    small: ClassVar = {
        "depth": 4,
        "w0": 8,
        "wa": 14.4,
        "wm": 2.0,
        "group_size": 8,
        "stem_width": 8,
    }
    stages = ("s1", "s2", "s3", "s4")
    variants = ("rga_regnety_016", "rga_regnety_032")
    golden_embedding = (10.146185, -0.788210, 0.745950, 16.820683, -0.471118, 0.013849)
    golden_logits = (-21.557755, -3.088884, -6.221781, -14.283149, 7.563615)

    def test_last_stride_is_removed_in_block_and_shortcut(self):
        model = timm.create_model("rga_regnety_016", device="meta")
        assert {m.stride for m in model.s4.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
        assert model.s3.b1.conv2.conv.stride == model.s3.b1.downsample.conv.stride == (2, 2)
