"""ResNet with Relation-Aware Global Attention, for person re-identification.

Paper: `Relation-Aware Global Attention for Person Re-identification`, Zhang et al., CVPR 2020,
https://arxiv.org/abs/1904.02998. Its code: microsoft/Relation-Aware-Global-Attention-Networks.

timm's ResNet with the last stride removed, one RGA module at the end of each stage, and a BN neck
before a classifier without bias.
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import ResNet

from ._create import checkpoint_cfg, create_rga, imagenet_cfg, test_cfg
from ._official import convert_official
from ._rga import RGAMixin, StateDict

__all__ = ["RGAResNet"]


class RGAResNet(RGAMixin, ResNet):
    """ResNet whose stages end in relation-aware global attention, with a re-id head."""

    def convert_weights(self, weights: StateDict) -> StateDict:
        """Weights of the paper's own code under this model's names; others as they are."""
        if any(key.startswith("backbone.") for key in weights):
            return convert_official(weights)
        return weights


def _create(variant: str, backbone: str, pretrained: bool, **kwargs: Any) -> RGAResNet:
    return create_rga(RGAResNet, variant, backbone, pretrained, **kwargs)


default_cfgs = generate_default_cfgs(
    {
        "rga_resnet18.tv_in1k": imagenet_cfg("resnet18.tv_in1k"),
        "rga_resnet34.tv_in1k": imagenet_cfg("resnet34.tv_in1k"),
        "rga_resnet50.tv_in1k": imagenet_cfg("resnet50.tv_in1k"),
        "rga_resnet101.tv_in1k": imagenet_cfg("resnet101.tv_in1k"),
        "rga_resnet152.tv_in1k": imagenet_cfg("resnet152.tv_in1k"),
        "rga_resnext50_32x4d.tv_in1k": imagenet_cfg("resnext50_32x4d.tv_in1k"),
        "rgas_resnet50.tv_in1k": imagenet_cfg("resnet50.tv_in1k"),
        "rgac_resnet50.tv_in1k": imagenet_cfg("resnet50.tv_in1k"),
        # Trained on drawn people: for tests of everything that takes a trained model.
        "test_rga_resnet.pedestrians": checkpoint_cfg("test_rga_resnet.pedestrians"),
        "test_rga_resnet.untrained*": test_cfg("resnet50.tv_in1k"),
    }
)


@register_model
def rga_resnet18(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-18 with RGA-SC."""
    return _create("rga_resnet18", "resnet18", pretrained, **kwargs)


@register_model
def rga_resnet34(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-34 with RGA-SC."""
    return _create("rga_resnet34", "resnet34", pretrained, **kwargs)


@register_model
def rga_resnet50(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-50 with RGA-SC: the paper's model."""
    return _create("rga_resnet50", "resnet50", pretrained, **kwargs)


@register_model
def rgas_resnet50(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-50 with RGA-S, the paper's spatial attention alone."""
    return _create("rgas_resnet50", "resnet50", pretrained, **{"relation": "s", **kwargs})


@register_model
def rgac_resnet50(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-50 with RGA-C, the paper's channel attention alone."""
    return _create("rgac_resnet50", "resnet50", pretrained, **{"relation": "c", **kwargs})


@register_model
def rga_resnet101(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-101 with RGA-SC."""
    return _create("rga_resnet101", "resnet101", pretrained, **kwargs)


@register_model
def rga_resnet152(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-152 with RGA-SC."""
    return _create("rga_resnet152", "resnet152", pretrained, **kwargs)


@register_model
def rga_resnext50_32x4d(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNeXt-50 32x4d with RGA-SC."""
    return _create("rga_resnext50_32x4d", "resnext50_32x4d", pretrained, **kwargs)


@register_model
def test_rga_resnet(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """A tiny model with every part of the family, for tests."""
    small = {"layers": (1, 1, 1, 1), "channels": (8, 12, 16, 24), "native_size": (64, 32)}
    return _create("test_rga_resnet", "resnet50", pretrained, **{**small, **kwargs})
