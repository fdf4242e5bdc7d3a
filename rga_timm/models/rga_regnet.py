"""RegNet with Relation-Aware Global Attention, for person re-identification.

Backbone: `Designing Network Design Spaces`, Radosavovic et al., CVPR 2020,
https://arxiv.org/abs/2003.13678. Attention: Zhang et al., CVPR 2020, see rga_resnet.py.

timm's model with the last stride removed and one RGA module at the end of each stage.
"""

from functools import partial
from typing import Any

from timm.models.regnet import RegNet
from torch import Tensor

from ._create import register_variant
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


_register = partial(register_variant, __name__, RGARegNet)
_register("rga_regnety_016", "regnety_016.tv2_in1k")
_register("rga_regnety_032", "regnety_032.ra_in1k")
# Blocks of 8, 16, 32 and 64 channels.
_SMALL: Any = {"depth": 4, "w0": 8, "wa": 14.4, "wm": 2.0, "group_size": 8, "stem_width": 8}
_register("test_rga_regnet", "regnety_016.tv2_in1k", for_tests=True, **_SMALL)
