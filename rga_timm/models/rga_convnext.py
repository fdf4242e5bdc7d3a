"""ConvNeXt with Relation-Aware Global Attention, for person re-identification.

Backbone: `A ConvNet for the 2020s`, Liu et al., CVPR 2022, https://arxiv.org/abs/2201.03545.
Attention: Zhang et al., CVPR 2020, see rga_resnet.py.

timm's model with one RGA module after the blocks of each stage. The 2x2 convolution between the
last two stages runs at stride 1 over a map padded by one row below and one column on the right.
The layer norm after pooling belongs to the pooled feature.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from ._create import register_variant
from ._rga import RGAMixin, Size, remove_stride

__all__ = ["RGAConvNeXt"]


class RGAConvNeXt(RGAMixin, ConvNeXt):
    """ConvNeXt whose stages end in relation-aware global attention, with a re-id head."""

    def forward_pool(self, x: Tensor) -> Tensor:
        """The feature, (B, head_hidden_size), after pooling and layer norm."""
        return self.head(x)

    def pooled_width(self) -> int:
        """Width of the layer norm: this family has no pooling that widens the feature."""
        return self.head_hidden_size

    def feat_size(self, img_size: Size, reduction: int) -> Size:
        """(H, W) of the feature map: patches do not overlap, the remainder is cut off."""
        return img_size[0] // reduction, img_size[1] // reduction

    def rga_stages(self) -> list[tuple[str, dict[str, Any]]]:
        """The ``blocks`` of each stage, which run last."""
        return [(f"{info['module']}.blocks", info) for info in self.feature_info]

    def remove_last_stride(self) -> None:
        """Remove it, and pad: at stride 1 an even kernel needs one row and column more."""
        stage = self.stages[-1]
        remove_stride(stage)
        norm, conv = stage.downsample
        padded = {"0": norm, "pad": nn.ZeroPad2d((0, 1, 0, 1)), "1": conv}  # the names stay
        stage.downsample = nn.Sequential(OrderedDict(padded))


_FEATURES = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}
_register = partial(register_variant, __name__, RGAConvNeXt, feature_cfg=_FEATURES)
_register("rga_convnext_tiny", "convnext_tiny.in12k_ft_in1k")
_register("rga_convnext_small", "convnext_small.in12k_ft_in1k")
_register("test_rga_convnext", "test_convnext.r160_in1k", for_tests=True)
