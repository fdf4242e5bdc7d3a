"""What every RGA model has, whatever its backbone: attention after the stages, and the BN neck."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rga_timm.layers import RELATIONS, RGA, bn_neck

try:  # what timm 1.0.31 and later write into an exported config
    from timm.models._input import update_model_input_size
except ImportError:
    update_model_input_size = None

Size = tuple[int, int]


def to_size(size: int | Sequence[int], name: str) -> Size:
    """``size`` as (height, width) in pixels.

    Raises:
        ValueError: If it is not one positive integer or two.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(s, int) and s > 0 for s in pair):
        raise ValueError(f"{name} must be (height, width) in pixels, or one integer; got {size!r}")
    return pair[0], pair[1]


def grid_size(img_size: Size, reduction: int) -> Size:
    """(H, W) of the feature map of an image after padded convolutions of this total stride."""
    return -(-img_size[0] // reduction), -(-img_size[1] // reduction)


def check_relation(relation: str) -> None:
    """Refuse an unknown ``relation`` argument.

    Raises:
        ValueError: With the names that are known.
    """
    if relation not in RELATIONS:
        raise ValueError(f"unknown relation {relation!r}: one of {', '.join(map(repr, RELATIONS))}")


def remove_stride(block: nn.Module) -> None:
    """Set the stride of every convolution in ``block`` to 1: twice the resolution, same weights.

    The receptive field shrinks with it, as in the paper; timm's ``output_stride`` dilates instead.
    """
    for m in block.modules():
        if isinstance(m, nn.Conv2d):
            m.stride = (1, 1)


def append_rga(
    model: Any,
    stages: Sequence[dict],
    relation: str,
    native_size: Size,
    reduction: int = 8,
    zero_init: bool = False,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Put an RGA module at the end of each stage, as its last child ``rga``.

    Inside the stage, because timm's feature extraction cuts a model at the ends of its stages.

    Args:
        model: A timm model, with ``img_size`` set.
        stages: The entries of ``model.feature_info`` that get one.
        relation: As :class:`rga_timm.layers.RGA`; ``'none'`` adds nothing, the paper's baseline.
        native_size: (height, width) in pixels which sets the widths over positions.
        reduction: The paper's r.
        zero_init: As :class:`rga_timm.layers.RelationAttention`.
        device: Device of the parameters.
        dtype: Data type of the parameters.
    """
    if relation == "none":
        return
    for info in stages:
        rga = RGA(
            info["num_chs"],
            grid_size(model.img_size, info["reduction"]),
            relation,
            grid_size(native_size, info["reduction"]),
            reduction,
            zero_init,
            # Backward begins in the last stage: what it keeps is used and freed before anything
            # is computed again, so that keeping it costs next to no memory at the peak.
            recompute=info is not stages[-1],
            device=device,
            dtype=dtype,
        )
        model.get_submodule(info["module"]).add_module("rga", rga)


def rga_modules(model: Any) -> dict[str, tuple[RGA, int]]:
    """The RGA modules of a model by name, each with the stride at which it works."""
    reductions = {info["module"]: info["reduction"] for info in model.feature_info}
    return {
        name: (m, reductions[name.removesuffix(".rga")])
        for name, m in model.named_modules()
        if isinstance(m, RGA)
    }


class ReidHeadMixin:
    """The head of a re-id model: global pool, BN neck, classifier without bias.

    For a timm model with ``global_pool`` and ``head_hidden_size``.
    """

    if TYPE_CHECKING:  # only: TorchScript takes annotations of a module's class for its own
        global_pool: Any
        neck: nn.Module
        head_hidden_size: int
        img_size: Size

    def forward_neck(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The feature before and after the BN neck.

        In training the triplet loss takes the first, the classifier the second; retrieval takes
        the second.

        Args:
            x: (B, C, H, W) of ``forward_features``.

        Returns:
            ``(pooled, embedding)``, both (B, C).
        """
        pooled = self.global_pool(x)
        return pooled, self.neck(pooled)

    @torch.jit.ignore
    def set_input_size(self, img_size: int | Sequence[int]) -> None:
        """Change the size of the images that the model takes.

        The relation weights are resampled to the new feature map sizes, all others stay. Make the
        optimizer after this: the resampled parameters are new ones.

        Args:
            img_size: (height, width) in pixels, or one integer for both.

        Raises:
            ValueError: If that is not a size.
        """
        size = to_size(img_size, "img_size")
        for rga, reduction in rga_modules(self).values():
            rga.set_feat_size(grid_size(size, reduction))
        self.img_size = size
        if update_model_input_size is not None:
            update_model_input_size(self, size)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must leave alone: none, as in the paper."""
        return set()

    def _make_neck(
        self,
        pool_type: str,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> nn.Module:
        if not pool_type:  # unpooled maps have no single feature to normalise
            return nn.Identity()
        return bn_neck(self.head_hidden_size, device=device, dtype=dtype)


def make_classifier(
    dim: int,
    num_classes: int,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """The identity classifier: linear, without bias, normal init 0.001 (the paper's code).

    Raises:
        ValueError: For a negative number of classes.
    """
    if num_classes < 0:
        raise ValueError(f"num_classes must be 0 (no classifier) or more, got {num_classes}")
    if num_classes == 0:
        return nn.Identity()
    fc = nn.Linear(dim, num_classes, bias=False, device=device, dtype=dtype)
    nn.init.normal_(fc.weight, std=0.001)
    return fc
