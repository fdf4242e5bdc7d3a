"""MobileNet V2, V3 and V4 with Relation-Aware Global Attention, for person re-identification.

Backbones: V2, Sandler et al., CVPR 2018, https://arxiv.org/abs/1801.04381; V3, Howard et al., ICCV
2019, https://arxiv.org/abs/1905.02244; V4, Qin et al., ECCV 2024, https://arxiv.org/abs/2404.10518.
Attention: Zhang et al., CVPR 2020, see rga_resnet.py.

timm's models with one RGA module at the end of each of the last four resolutions. The stride
between the last two of them is removed. V3 and V4 pool 960 channels before their last 1x1
convolution, which belongs to the pooled feature; the embedding has 1280 values, as in V2.
"""

from functools import partial

from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor

from ._create import register_variant
from .rga_efficientnet import RGABlocksMixin, RGAEfficientNet

__all__ = ["RGAMobileNetV3"]


class RGAMobileNetV3(RGABlocksMixin, MobileNetV3):
    """MobileNet V3 or V4 with relation-aware global attention and a re-id head."""

    def forward_pool(self, x: Tensor) -> Tensor:
        """The feature, (B, head_hidden_size), after pooling and the last convolution."""
        x = self.conv_head(self.global_pool(x))
        return self.flatten(self.act2(self.norm_head(x)))

    def pooled_width(self) -> int:
        """Width of the last convolution, whatever the pooling."""
        return self.head_hidden_size


_register = partial(register_variant, __name__, feature_cfg={"flatten_sequential": True})
_register(RGAEfficientNet, "rga_mobilenetv2_100", "mobilenetv2_100.ra_in1k")
_register(RGAMobileNetV3, "rga_mobilenetv3_large_100", "mobilenetv3_large_100.ra_in1k")
_register(RGAMobileNetV3, "rga_mobilenetv4_conv_medium", "mobilenetv4_conv_medium.e500_r256_in1k")
_register(RGAMobileNetV3, "test_rga_mobilenet", "mobilenetv3_small_050.lamb_in1k", for_tests=True)
