"""RegNet with Relation-Aware Global Attention, for person re-identification.

Backbone: `Designing Network Design Spaces`, Radosavovic et al., CVPR 2020,
https://arxiv.org/abs/2003.13678. Attention: Zhang et al., CVPR 2020, see rga_resnet.py.

timm's model with the last stride removed and one RGA module at the end of each stage.
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.regnet import RegNet
from torch import Tensor

from ._create import create_rga, imagenet_cfg, test_cfg
from ._rga import RGAMixin

__all__ = ["RGARegNet"]


class RGARegNet(RGAMixin, RegNet):
    """RegNet whose stages end in relation-aware global attention, with a re-id head."""

    def forward_pool(self, x: Tensor) -> Tensor:
        """The pooled feature, (B, head_hidden_size)."""
        return self.head(x)

    def pooled_width(self) -> int:
        """Width of the pooled feature."""
        return self.num_features * self.head.global_pool.feat_mult()


def _create(variant: str, backbone: str, pretrained: bool, **kwargs: Any) -> RGARegNet:
    return create_rga(RGARegNet, variant, backbone, pretrained, **kwargs)


default_cfgs = generate_default_cfgs(
    {
        "rga_regnety_016.tv2_in1k": imagenet_cfg("regnety_016.tv2_in1k"),
        "rga_regnety_032.ra_in1k": imagenet_cfg("regnety_032.ra_in1k"),
        "test_rga_regnet.untrained": test_cfg("regnety_016.tv2_in1k"),
    }
)


@register_model
def rga_regnety_016(pretrained: bool = False, **kwargs: Any) -> RGARegNet:
    """RegNetY-1.6GF with RGA-SC."""
    return _create("rga_regnety_016", "regnety_016", pretrained, **kwargs)


@register_model
def rga_regnety_032(pretrained: bool = False, **kwargs: Any) -> RGARegNet:
    """RegNetY-3.2GF with RGA-SC."""
    return _create("rga_regnety_032", "regnety_032", pretrained, **kwargs)


@register_model
def test_rga_regnet(pretrained: bool = False, **kwargs: Any) -> RGARegNet:
    """A tiny model with every part of the family, for tests."""
    # Blocks of 8, 16, 32 and 64 channels.
    small = {"depth": 4, "w0": 8, "wa": 14.4, "wm": 2.0, "group_size": 8, "stem_width": 8}
    kwargs = {"native_size": (64, 32), **small, **kwargs}
    return _create("test_rga_regnet", "regnety_016", pretrained, **kwargs)
