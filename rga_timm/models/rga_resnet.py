"""ResNet with Relation-Aware Global Attention, for person re-identification.

Paper: `Relation-Aware Global Attention for Person Re-identification`, Zhang et al., CVPR 2020,
https://arxiv.org/abs/1904.02998. Its code: microsoft/Relation-Aware-Global-Attention-Networks.

timm's ResNet with the last stride removed, one RGA module at the end of each stage, and a BN neck
before a classifier without bias. Parameters other than these keep timm's names.
"""

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._manipulate import MATCH_PREV_GROUP
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor
from torch.nn import functional as F

from ._checkpoint import checkpoint_filter_fn
from ._rga import (
    ReidHeadMixin,
    Size,
    append_rga,
    check_relation,
    make_classifier,
    remove_stride,
    to_size,
)

__all__ = ["RGAResNet"]


class RGAResNet(ReidHeadMixin, ResNet):
    """ResNet whose stages end in relation-aware global attention, with a re-id head.

    Args:
        block: timm's residual block.
        layers: Blocks a stage.
        img_size: (height, width) of the images in pixels; the relation layers depend on it.
        native_size: (height, width) in pixels which sets the widths of the relation layers. It
            belongs to the checkpoint, ``img_size`` to its use: leave it at the variant's own
            unless a checkpoint was made with another.
        relation: ``'sc'`` (RGA-SC), ``'s'``, ``'c'``, ``'cs'``, ``'parallel'``, or ``'none'`` for
            the baseline without attention.
        reduction: The paper's r.
        zero_init_attention: Start with attention weights that are all equal instead of random, for
            training from scratch.
        num_classes: Identities of the classifier; 0 for none, then the output is the embedding.
        in_chans: Channels of the images.
        global_pool: timm's pooling type; ``''`` gives unpooled feature maps and no neck.
        drop_rate: Dropout on the embedding before the classifier.
        device: Device of the parameters.
        dtype: Data type of the parameters.
        **kwargs: Passed to timm's :class:`timm.models.ResNet`, which refuses unknown ones.

    Raises:
        ValueError: For an unknown relation, or a size that is not one.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, ...],
        img_size: int | Size = (256, 128),
        native_size: int | Size = (256, 128),
        relation: str = "sc",
        reduction: int = 8,
        zero_init_attention: bool = False,
        num_classes: int = 0,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        check_relation(relation)
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            block,
            layers,
            num_classes=0,
            in_chans=in_chans,
            global_pool=global_pool,
            drop_rate=drop_rate,
            **kwargs,
            **dd,
        )
        self.in_chans = in_chans
        self.img_size = to_size(img_size, "img_size")
        self.native_size = to_size(native_size, "native_size")
        self.relation = relation
        self.reduction = reduction
        if self.feature_info[4]["reduction"] == 32:
            remove_stride(self.layer4[0])
            self.feature_info[4]["reduction"] = 16
        append_rga(
            self,
            self.feature_info[1:],
            relation,
            self.native_size,
            reduction,
            zero_init_attention,
            **dd,
        )
        self.num_classes = num_classes
        self.neck = self._make_neck(global_pool, **dd)
        self.fc = make_classifier(self.head_hidden_size, num_classes, **dd)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups, input to output; RGA goes with the last block of its stage."""
        return {
            "stem": r"^conv1|bn1|maxpool",
            "blocks": r"^layer(\d+)"
            if coarse
            else [(r"^layer(\d+)\.(\d+)", None), (r"^layer(\d+)\.rga", MATCH_PREV_GROUP)],
        }

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, for another number of identities or none.

        Args:
            num_classes: Identities; 0 for none.
            global_pool: timm's pooling type; the present one if None. The neck stays unless this
                changes the width of the pooled feature.
        """
        parameter = next(self.parameters())
        dd: dict[str, Any] = {"device": parameter.device, "dtype": parameter.dtype}
        old_width = self.head_hidden_size if self.global_pool.pool_type else 0
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        super().reset_classifier(0, pool_type)  # which sets global_pool and head_hidden_size
        if old_width != (self.head_hidden_size if self.global_pool.pool_type else 0):
            self.neck = self._make_neck(self.global_pool.pool_type, **dd).train(self.training)
        self.num_classes = num_classes
        self.fc = make_classifier(self.head_hidden_size, num_classes, **dd).train(self.training)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Head on the feature map.

        Args:
            x: (B, C, H, W) of ``forward_features``.
            pre_logits: Give the embedding, not the identity logits.

        Returns:
            (B, num_classes) logits, or the (B, C) embedding if asked for or without classifier.
        """
        embedding = self.forward_neck(x)[1]
        if self.drop_rate:
            embedding = F.dropout(embedding, p=float(self.drop_rate), training=self.training)
        return embedding if pre_logits else self.fc(embedding)


def _create_rga_resnet(variant: str, pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    return build_model_with_cfg(
        RGAResNet,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        **kwargs,
    )


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 0,  # ImageNet weights come without identities
        "input_size": (3, 256, 128),
        "fixed_input_size": True,
        "pool_size": (16, 8),
        "crop_pct": 1.0,
        "crop_mode": "squash",  # re-id resizes to the input size, whatever the aspect ratio
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv1",
        "classifier": "fc",
        "paper_name": "Relation-Aware Global Attention for Person Re-identification",
        "paper_ids": "arXiv:1904.02998",
        **kwargs,
    }


def _tv(arch: str) -> dict[str, Any]:
    """Torchvision's ImageNet weights of the backbone, from timm's Hub repository."""
    return _cfg(
        hf_hub_id=f"timm/{arch}.tv_in1k",
        license="bsd-3-clause",
        origin_url="https://github.com/pytorch/vision",
    )


default_cfgs = generate_default_cfgs(
    {
        "rga_resnet18.tv_in1k": _tv("resnet18"),
        "rga_resnet34.tv_in1k": _tv("resnet34"),
        "rga_resnet50.tv_in1k": _tv("resnet50"),
        "rga_resnet101.tv_in1k": _tv("resnet101"),
        "rga_resnet152.tv_in1k": _tv("resnet152"),
        "rga_resnext50_32x4d.tv_in1k": _tv("resnext50_32x4d"),
        "rgas_resnet50.tv_in1k": _tv("resnet50"),
        "rgac_resnet50.tv_in1k": _tv("resnet50"),
        "test_rga_resnet.untrained": _cfg(input_size=(3, 64, 32), pool_size=(4, 2)),
    }
)


@register_model
def rga_resnet18(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-18 with RGA-SC."""
    args = {"block": BasicBlock, "layers": (2, 2, 2, 2)}
    return _create_rga_resnet("rga_resnet18", pretrained, **{**args, **kwargs})


@register_model
def rga_resnet34(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-34 with RGA-SC."""
    args = {"block": BasicBlock, "layers": (3, 4, 6, 3)}
    return _create_rga_resnet("rga_resnet34", pretrained, **{**args, **kwargs})


@register_model
def rga_resnet50(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-50 with RGA-SC: the paper's model."""
    args = {"block": Bottleneck, "layers": (3, 4, 6, 3)}
    return _create_rga_resnet("rga_resnet50", pretrained, **{**args, **kwargs})


@register_model
def rgas_resnet50(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-50 with RGA-S, the paper's spatial attention alone."""
    args = {"block": Bottleneck, "layers": (3, 4, 6, 3), "relation": "s"}
    return _create_rga_resnet("rgas_resnet50", pretrained, **{**args, **kwargs})


@register_model
def rgac_resnet50(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-50 with RGA-C, the paper's channel attention alone."""
    args = {"block": Bottleneck, "layers": (3, 4, 6, 3), "relation": "c"}
    return _create_rga_resnet("rgac_resnet50", pretrained, **{**args, **kwargs})


@register_model
def rga_resnet101(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-101 with RGA-SC."""
    args = {"block": Bottleneck, "layers": (3, 4, 23, 3)}
    return _create_rga_resnet("rga_resnet101", pretrained, **{**args, **kwargs})


@register_model
def rga_resnet152(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNet-152 with RGA-SC."""
    args = {"block": Bottleneck, "layers": (3, 8, 36, 3)}
    return _create_rga_resnet("rga_resnet152", pretrained, **{**args, **kwargs})


@register_model
def rga_resnext50_32x4d(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """ResNeXt-50 32x4d with RGA-SC."""
    args = {"block": Bottleneck, "layers": (3, 4, 6, 3), "cardinality": 32, "base_width": 4}
    return _create_rga_resnet("rga_resnext50_32x4d", pretrained, **{**args, **kwargs})


@register_model
def test_rga_resnet(pretrained: bool = False, **kwargs: Any) -> RGAResNet:
    """A tiny model with every part of the family, for tests."""
    args = {
        "block": Bottleneck,
        "layers": (1, 1, 1, 1),
        "channels": (8, 12, 16, 24),
        "native_size": (64, 32),
    }
    return _create_rga_resnet("test_rga_resnet", pretrained, **{**args, **kwargs})
