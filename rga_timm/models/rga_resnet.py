"""ResNet with Relation-Aware Global Attention, for person re-identification.

Paper: `Relation-Aware Global Attention for Person Re-identification`, Zhang et al., CVPR 2020,
https://arxiv.org/abs/1904.02998. Its code: microsoft/Relation-Aware-Global-Attention-Networks.

timm's ResNet with the last stride removed, one RGA module at the end of each stage, and a BN neck
before a classifier without bias.
"""

from functools import partial

from timm.models.resnet import ResNet

from ._create import register_variant
from ._official import convert_official
from ._rga import RGAMixin, StateDict

__all__ = ["RGAResNet"]


class RGAResNet(RGAMixin, ResNet):
    """ResNet whose stages end in relation-aware global attention, with a re-id head."""

    def convert_weights(self, weights: StateDict) -> StateDict:
        """Rename the weights of the paper's own code."""
        is_official = any(key.startswith("backbone.") for key in weights)
        return convert_official(weights) if is_official else weights


_register = partial(register_variant, __name__, RGAResNet)
_register("rga_resnet18", "resnet18.tv_in1k")
_register("rga_resnet34", "resnet34.tv_in1k")
_register("rga_resnet50", "resnet50.tv_in1k")  # the paper's model
_register("rgas_resnet50", "resnet50.tv_in1k", relation="s")  # with spatial attention alone
_register("rgac_resnet50", "resnet50.tv_in1k", relation="c")  # with channel attention alone
_register("rga_resnet101", "resnet101.tv_in1k")
_register("rga_resnet152", "resnet152.tv_in1k")
_register("rga_resnext50_32x4d", "resnext50_32x4d.tv_in1k")
_register(
    "test_rga_resnet",
    "resnet50.tv_in1k",
    checkpoints=["pedestrians"],  # for tests of everything that takes a trained model
    for_tests=True,
    layers=(1, 1, 1, 1),
    channels=(8, 12, 16, 24),
)
