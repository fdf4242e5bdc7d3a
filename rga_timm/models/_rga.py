"""What all RGA models have in common: attention after the stages, and the re-id head."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from timm.models._manipulate import MATCH_PREV_GROUP
from torch import Tensor, nn
from torch.nn import functional as F

from rga_timm.layers import RELATIONS, RGA, bn_neck

try:  # what timm 1.0.31 and later write into an exported config
    from timm.models._input import update_model_input_size
except ImportError:
    update_model_input_size = None

Size = tuple[int, int]
StateDict = dict[str, Tensor]

if TYPE_CHECKING:  # stands for timm's class, which comes after the mixin in a family's bases
    _TimmModel = Any
else:
    _TimmModel = object


@dataclass(frozen=True)
class RGAConfig:
    """How to make an RGA model of a backbone.

    Attributes:
        backbone: Its name in timm.
        img_size: (height, width) of the images in pixels; the relation layers depend on it.
        native_size: (height, width) in pixels that sets the widths of the relation layers. It
            belongs to the checkpoint, ``img_size`` to its use: change it only for a checkpoint
            that was made with another.
        relation: ``'sc'`` (RGA-SC), ``'s'``, ``'c'``, ``'cs'``, ``'parallel'``, or ``'none'`` for
            the baseline without attention.
        reduction: The paper's r.
        zero_init_attention: Start with equal attention weights, to train from scratch.
        num_classes: Identities of the classifier; 0 for none, then the output is the embedding.
        global_pool: timm's pooling type; ``''`` gives unpooled feature maps and no neck.
        drop_rate: Dropout on the embedding before the classifier.

    Raises:
        ValueError: For an unknown relation, an invalid size, a reduction below 1 or a negative
            number of classes.
    """

    backbone: str
    img_size: Size = (256, 128)
    native_size: Size = (256, 128)
    relation: str = "sc"
    reduction: int = 8
    zero_init_attention: bool = False
    num_classes: int = 0
    global_pool: str = "avg"
    drop_rate: float = 0.0

    def __post_init__(self) -> None:
        """Check the values; sizes may be given as one integer."""
        for name in ("img_size", "native_size"):
            object.__setattr__(self, name, to_size(getattr(self, name), name))
        if self.relation not in RELATIONS:
            known = ", ".join(map(repr, RELATIONS))
            raise ValueError(f"unknown relation {self.relation!r}: one of {known}")
        if self.reduction < 1:
            raise ValueError(f"reduction, the paper's r, must be 1 or more, got {self.reduction}")
        check_num_classes(self.num_classes)


class RGAMixin(_TimmModel):
    """Makes timm's model of a backbone an RGA model; a family's class is ``(RGAMixin, <timm's>)``.

    ``forward_features`` gives maps, (B, num_features, H, W). The head is pooling (with the layers
    that the backbone has before its classifier), BN neck, and a classifier without bias.
    Parameters other than ``*.rga.*``, ``neck.*`` and ``fc.*`` keep timm's names.

    A family overrides the methods of the first group where its backbone differs.
    """

    if TYPE_CHECKING:  # because TorchScript would read these annotations
        backbone: str
        neck: nn.Module
        fc: nn.Module
        img_size: Size
        pool_type: str
        drop_rate: float

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError(
            f"{type(self).__name__} cannot be built directly: use timm.create_model('rga_...'); "
            "timm.list_models('*rga*') lists the models"
        )

    # What depends on the family.

    @classmethod
    def backbone_args(cls, img_size: Size, global_pool: str) -> dict[str, Any]:
        """Arguments for timm's model, beside those that the caller gives."""
        return {"global_pool": global_pool}

    def forward_pool(self, x: Tensor) -> Tensor:
        """The pooled feature, (B, head_hidden_size), of maps (B, num_features, H, W)."""
        return self.global_pool(x)

    def pooled_width(self) -> int:
        """Width of the output of ``forward_pool``."""
        return self.num_features * self.global_pool.feat_mult()

    def feat_size(self, img_size: Size, reduction: int) -> Size:
        """(H, W) of an image's feature map at this total stride, with padded convolutions."""
        return -(-img_size[0] // reduction), -(-img_size[1] // reduction)

    def rga_stages(self) -> list[tuple[str, dict[str, Any]]]:
        """Names of the modules that get an RGA as their last child, and their ``feature_info``.

        Each must run its children in sequence, and be a stage or part of one, because timm's
        feature extraction cuts a model at the ends of its stages.
        """
        return [(info["module"], info) for info in self.feature_info[-4:]]

    def remove_last_stride(self) -> None:
        """Make the last stage work at the resolution of the one before it."""
        remove_stride(self.get_submodule(self.feature_info[-1]["module"]))

    def set_pool_type(self, pool_type: str, **kwargs: Any) -> None:
        """Change the pooling to timm's ``pool_type``."""
        super().reset_classifier(0, pool_type, **kwargs)

    def set_backbone_size(self, img_size: Size) -> None:
        """Prepare the backbone for images of this size; convolutions take any size."""

    def convert_weights(self, weights: StateDict) -> StateDict:
        """Rename the weights of another project's network of this family."""
        return weights

    def resample_backbone(self, weights: StateDict, img_size: Size | None) -> StateDict:
        """Resample the backbone from a checkpoint's image size (None if unknown) to this one."""
        return weights

    # What all have in common.

    def add_rga(self, config: RGAConfig) -> None:
        """Turn the plain backbone, without classifier, into an RGA model."""
        for name in ("backbone", "img_size", "native_size", "relation", "reduction", "drop_rate"):
            setattr(self, name, getattr(config, name))
        reductions = [info["reduction"] for info in self.feature_info[-2:]]
        if reductions[-1] > reductions[0]:
            self.remove_last_stride()
            self.feature_info[-1]["reduction"] = reductions[0]
        self.check_size(config.img_size, "img_size")
        self.check_size(config.native_size, "native_size")
        if config.relation != "none":
            self._append_rga(config.zero_init_attention)
        self._change_pooling(config.global_pool)
        self.num_classes = config.num_classes
        self.neck = self._make_neck()
        self.fc = self._make_classifier()

    def _change_pooling(self, pool_type: str, **kwargs: Any) -> None:
        self.set_pool_type(pool_type, **kwargs)
        self.head_hidden_size = self.pooled_width()
        self.pool_type = pool_type

    @torch.jit.ignore
    def check_size(self, size: Size, name: str) -> None:
        """Raise a ValueError for images that would have an empty feature map."""
        smallest = max(info["reduction"] for info in self.feature_info)
        if min(self.feat_size(size, smallest)) < 1:
            raise ValueError(
                f"{name} {size[0]}x{size[1]} is too small: {self.backbone} needs {smallest} pixels "
                "in each direction"
            )

    def _append_rga(self, zero_init: bool) -> None:
        for name, info in self.rga_stages():
            rga = RGA(
                info["num_chs"],
                self.feat_size(self.img_size, info["reduction"]),
                self.relation,
                self.feat_size(self.native_size, info["reduction"]),
                self.reduction,
                zero_init,
                **self._factory(),
            )
            self.get_submodule(name).add_module("rga", rga)

    def forward_neck(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the feature before and after the BN neck, ``(pooled, embedding)``.

        Both are (B, head_hidden_size), from maps x, (B, num_features, H, W). The triplet loss takes
        the first, classifier and retrieval the second.
        """
        pooled = self.forward_pool(x)
        return pooled, self.neck(pooled)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute identity logits, (B, num_classes), of maps x, (B, num_features, H, W).

        With ``pre_logits``, or without classifier, return the embedding, (B, head_hidden_size).
        """
        embedding = self.forward_neck(x)[1]
        if self.drop_rate:
            embedding = F.dropout(embedding, p=float(self.drop_rate), training=self.training)
        return embedding if pre_logits else self.fc(embedding)

    def forward(self, x: Tensor) -> Tensor:
        """Identity logits, or the embedding without classifier, of images (B, in_chans, H, W)."""
        return self.forward_head(self.forward_features(x))

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The classifier over identities; an identity where there is none."""
        return self.fc

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None, **kwargs: Any
    ) -> None:
        """Replace the classifier, and the pooling if ``global_pool`` is not None.

        The neck stays unless the width of the pooled feature changes. ``kwargs`` are those that
        timm's own methods of the family pass.
        """
        check_num_classes(num_classes)
        if global_pool is not None:
            old_width = self.head_hidden_size if self.pool_type else 0
            self._change_pooling(global_pool, **kwargs)
            if old_width != (self.head_hidden_size if global_pool else 0):
                self.neck = self._make_neck().train(self.training)
        self.num_classes = num_classes
        self.fc = self._make_classifier().train(self.training)

    @torch.jit.ignore
    def set_input_size(self, img_size: int | Sequence[int]) -> None:
        """Change the image size, (height, width) in pixels or one integer for both.

        The relation weights are resampled to the new feature map sizes, all others stay. Make the
        optimizer after this: the resampled parameters are new ones.

        Raises:
            ValueError: If the size is invalid, or too small for the network.
        """
        size = to_size(img_size, "img_size")
        self.check_size(size, "img_size")
        self.set_backbone_size(size)
        for rga, reduction in rga_modules(self).values():
            rga.set_feat_size(self.feat_size(size, reduction))
        self.img_size = size
        if update_model_input_size is not None:
            update_model_input_size(self, size)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the backbone's parameters without weight decay; attention has none."""
        own = super()
        return own.no_weight_decay() if hasattr(own, "no_weight_decay") else set()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Group parameters as timm does; RGA goes with the last block of its stage."""
        matcher = super().group_matcher(coarse)
        blocks = matcher["blocks"]
        blocks = [(blocks, None)] if isinstance(blocks, str) else blocks
        numbered = {re.sub(r"\d+", r"(\\d+)", re.escape(name)) for name, _ in self.rga_stages()}
        rga = [(rf"^{name}\.rga", None if coarse else MATCH_PREV_GROUP) for name in numbered]
        return {**matcher, "blocks": [*rga, *blocks]}

    def _factory(self) -> dict[str, Any]:
        """Device and data type for new parameters."""
        parameter = next(self.parameters())
        return {"device": parameter.device, "dtype": parameter.dtype}

    def _make_neck(self) -> nn.Module:
        if not self.pool_type:  # unpooled maps have no single feature to normalise
            return nn.Identity()
        return bn_neck(self.head_hidden_size, **self._factory())

    def _make_classifier(self) -> nn.Module:
        """Linear, without bias, normal init 0.001 (the paper's code)."""
        if self.num_classes == 0:
            return nn.Identity()
        fc = nn.Linear(self.head_hidden_size, self.num_classes, bias=False, **self._factory())
        nn.init.normal_(fc.weight, std=0.001)
        return fc


def to_size(size: int | Sequence[int], name: str) -> Size:
    """(height, width) in pixels, or a ValueError unless it is one or two positive integers."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(s, int) and s > 0 for s in pair):
        raise ValueError(f"{name} must be (height, width) in pixels, or one integer; got {size!r}")
    return pair[0], pair[1]


def check_num_classes(num_classes: int) -> None:
    """Raise a ValueError for a negative number of classes."""
    if num_classes < 0:
        raise ValueError(f"num_classes must be 0 (no classifier) or more, got {num_classes}")


def remove_stride(stage: nn.Module) -> None:
    """Remove the stride of a stage; timm's ``output_stride`` would dilate instead.

    Every convolution gets stride 1, and pooling in a shortcut is removed.

    Raises:
        ValueError: If something else in the stage has a stride, such as a blur pool.
    """
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
            module.stride = (1, 1)
        for name, child in module.named_children():
            if isinstance(child, nn.AvgPool2d) and child.stride != 1:
                setattr(module, name, nn.Identity())
    left = {
        type(m).__name__
        for m in stage.modules()
        if not list(m.children()) and getattr(m, "stride", 1) not in (1, (1, 1), [1, 1])
    }
    if left:
        raise ValueError(
            f"the last stage has a stride in {', '.join(sorted(left))}; only that of convolutions "
            "and average pools can be removed"
        )


def rga_modules(model: Any) -> dict[str, tuple[RGA, int]]:
    """The RGA modules of a model by name, each with the stride at which it works."""
    strides = {f"{info['module']}.": info["reduction"] for info in model.feature_info}
    return {
        name: (m, next(stride for stage, stride in strides.items() if name.startswith(stage)))
        for name, m in model.named_modules()
        if isinstance(m, RGA)
    }
