"""EfficientNet with Relation-Aware Global Attention, for person re-identification.

Backbone: `EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks`, Tan and Le,
ICML 2019, https://arxiv.org/abs/1905.11946. Attention: Zhang et al., CVPR 2020, see rga_resnet.py.

timm's model with one RGA module at the end of each of the last four resolutions. The stride between
the last two of them is removed. The 1x1 convolution after the last block stays, so the embedding
has 1280 values.
"""

import logging
from functools import partial
from typing import NamedTuple

from timm.layers import Conv2dSame
from timm.models import get_pretrained_cfg
from timm.models.efficientnet import EfficientNet

from ._create import register_variant
from ._rga import RGAMixin, StateDict, remove_stride

__all__ = ["RGAEfficientNet"]

_logger = logging.getLogger(__name__)


class _LiteRelease(NamedTuple):
    """A release of EfficientNet-Lite with its tensors in timm's order under other names."""

    first_weight: str
    classifier: str
    bn_eps: float
    pad_type: str


_LITE_RELEASES = (
    # RangiLyu/EfficientNet-Lite
    _LiteRelease("stem.0.weight", "fc.", bn_eps=1e-3, pad_type=""),
    # ml-illustrated/EfficientNet-Lite-PyTorch, converted from TensorFlow
    _LiteRelease("_conv_stem.weight", "_fc.", bn_eps=1e-3, pad_type="same"),
)
# How these releases normalise images.
_LITE_NORMALISATION = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}


class RGABlocksMixin(RGAMixin):
    """For the networks of timm's EfficientNet builder, whose stages are groups of blocks."""

    def remove_last_stride(self) -> None:
        """Remove it from all groups of blocks at the last resolution."""
        for blocks in self.blocks[self.stage_ends[-2] :]:
            remove_stride(blocks)


class RGAEfficientNet(RGABlocksMixin, EfficientNet):
    """EfficientNet, or one built alike, with relation-aware global attention and a re-id head."""

    def convert_weights(self, weights: StateDict) -> StateDict:
        """Rename the weights of EfficientNet-Lite releases; a ValueError for another variant.

        The model's config takes over their normalisation of images, unless the caller has set one.
        """
        release = next((r for r in _LITE_RELEASES if r.first_weight in weights), None)
        if release is None or "efficientnet_lite" not in self.backbone:
            return weights
        theirs = {k: v for k, v in weights.items() if not k.startswith(release.classifier)}
        own = {
            k: v
            for k, v in self.state_dict().items()
            if ".rga." not in k and not k.startswith(("neck.", "fc."))
        }
        shapes = [v.shape for k, v in own.items() if k != "conv_stem.weight"]
        if [v.shape for k, v in theirs.items() if k != release.first_weight] != shapes:
            raise ValueError(
                f"the EfficientNet-Lite checkpoint is not one of {self.backbone}: the number of "
                f"tensors before its classifier ({len(theirs)}, not {len(own)}) or a shape differs"
            )
        pad_type = "same" if isinstance(self.conv_stem, Conv2dSame) else ""
        if (self.bn1.eps, pad_type) != (release.bn_eps, release.pad_type):
            text = (
                "These weights were trained with other padding or batch norm than the model has: "
                "pass bn_eps=%g, pad_type=%r to create_model."
            )
            _logger.warning(text, release.bn_eps, release.pad_type)
        cfg = self.pretrained_cfg
        name = ".".join(filter(None, (cfg["architecture"], cfg.get("tag"))))
        registered = get_pretrained_cfg(name, allow_unregistered=True)
        if registered and cfg["mean"] == registered.mean:
            self.pretrained_cfg.update(**_LITE_NORMALISATION)
            _logger.info("Images are normalised with mean 127/255, std 128/255 for these weights.")
        return dict(zip(own, theirs.values(), strict=True))


_register = partial(
    register_variant, __name__, RGAEfficientNet, feature_cfg={"flatten_sequential": True}
)
# Without squeeze-and-excitation, with ReLU6: for small devices.
_register("rga_efficientnet_lite0", "efficientnet_lite0.ra_in1k")
# The same with TensorFlow's padding, batch norm and weights.
_register("rga_tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k", checkpoints=["market1501"])
_register("rga_efficientnet_b0", "efficientnet_b0.ra_in1k")
_register("test_rga_efficientnet", "test_efficientnet.r160_in1k", for_tests=True)
