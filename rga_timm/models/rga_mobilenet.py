"""MobileNet V2, V3 and V4 with Relation-Aware Global Attention, for person re-identification.

Backbones: V2, Sandler et al., CVPR 2018, https://arxiv.org/abs/1801.04381; V3, Howard et al., ICCV
2019, https://arxiv.org/abs/1905.02244; V4, Qin et al., ECCV 2024, https://arxiv.org/abs/2404.10518.
Attention: Zhang et al., CVPR 2020, see rga_resnet.py.

timm's models with one RGA module at the end of each of the last four resolutions. The stride
between the last two of them is removed. V3 and V4 pool before their last 1x1 convolution, which
stays part of the pooled feature: 960 channels are pooled, the embedding has 1280 values, as with
V2.
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor

from ._create import create_rga, imagenet_cfg, test_cfg
from .rga_efficientnet import RGABlocksMixin, RGAEfficientNet

__all__ = ["RGAMobileNetV3"]


class RGAMobileNetV3(RGABlocksMixin, MobileNetV3):
    """MobileNet V3 or V4 with relation-aware global attention and a re-id head."""

    def forward_pool(self, x: Tensor) -> Tensor:
        """The feature, (B, head_hidden_size), after pooling and the convolution that follows it."""
        x = self.conv_head(self.global_pool(x))
        return self.flatten(self.act2(self.norm_head(x)))

    def pooled_width(self) -> int:
        """That of the convolution, whatever the pooling."""
        return self.head_hidden_size


def _create(
    family: type[RGAEfficientNet] | type[RGAMobileNetV3],
    variant: str,
    backbone: str,
    pretrained: bool,
    **kwargs: Any,
) -> Any:
    feature_cfg = {"flatten_sequential": True}
    return create_rga(family, variant, backbone, pretrained, feature_cfg, **kwargs)


default_cfgs = generate_default_cfgs(
    {
        "rga_mobilenetv2_100.ra_in1k": imagenet_cfg("mobilenetv2_100.ra_in1k"),
        "rga_mobilenetv3_large_100.ra_in1k": imagenet_cfg("mobilenetv3_large_100.ra_in1k"),
        "rga_mobilenetv4_conv_medium.e500_r256_in1k": imagenet_cfg(
            "mobilenetv4_conv_medium.e500_r256_in1k"
        ),
        "test_rga_mobilenet.untrained": test_cfg("mobilenetv3_small_050.lamb_in1k"),
    }
)


@register_model
def rga_mobilenetv2_100(pretrained: bool = False, **kwargs: Any) -> RGAEfficientNet:
    """MobileNet V2 with RGA-SC."""
    return _create(RGAEfficientNet, "rga_mobilenetv2_100", "mobilenetv2_100", pretrained, **kwargs)


@register_model
def rga_mobilenetv3_large_100(pretrained: bool = False, **kwargs: Any) -> RGAMobileNetV3:
    """MobileNet V3 Large with RGA-SC."""
    variant, backbone = "rga_mobilenetv3_large_100", "mobilenetv3_large_100"
    return _create(RGAMobileNetV3, variant, backbone, pretrained, **kwargs)


@register_model
def rga_mobilenetv4_conv_medium(pretrained: bool = False, **kwargs: Any) -> RGAMobileNetV3:
    """MobileNet V4 Conv Medium with RGA-SC."""
    variant, backbone = "rga_mobilenetv4_conv_medium", "mobilenetv4_conv_medium"
    return _create(RGAMobileNetV3, variant, backbone, pretrained, **kwargs)


@register_model
def test_rga_mobilenet(pretrained: bool = False, **kwargs: Any) -> RGAMobileNetV3:
    """A small model with every part of the family, for tests."""
    kwargs = {"native_size": (64, 32), **kwargs}
    variant, backbone = "test_rga_mobilenet", "mobilenetv3_small_050"
    return _create(RGAMobileNetV3, variant, backbone, pretrained, **kwargs)
