"""ResNet-IBN with Relation-Aware Global Attention, for person re-identification.

Backbone: IBN-Net, `Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net`, Pan
et al., ECCV 2018, https://arxiv.org/abs/1807.09441. Attention: Zhang et al., CVPR 2020, see
rga_resnet.py.

In timm's ResNet, half of the channels after a block's first convolution are normalised over the
image instead of the batch. Parameters have the names of the authors' checkpoints.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ._create import imagenet_cfg, register_variant
from ._rga import RGAConfig
from .rga_resnet import RGAResNet

__all__ = ["RGAResNetIBN"]


class InstanceBatchNorm(nn.Module):
    """IBN-a (section 3.2): instance norm of half of the channels, batch norm of the rest."""

    def __init__(self, num_features: int, **dd: Any) -> None:
        super().__init__()
        self.halves = [num_features // 2, num_features - num_features // 2]
        self.IN = nn.InstanceNorm2d(self.halves[0], affine=True, **dd)
        self.BN = nn.BatchNorm2d(self.halves[1], **dd)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, (B, C, H, W)."""
        over_image, over_batch = x.split(self.halves, dim=1)
        return torch.cat([self.IN(over_image), self.BN(over_batch)], dim=1)


class RGAResNetIBN(RGAResNet):
    """:class:`RGAResNet` with IBN-a in all blocks of the first three stages."""

    def add_rga(self, config: RGAConfig) -> None:
        """Add IBN-a, then attention and head."""
        for block in (*self.layer1, *self.layer2, *self.layer3):
            if not isinstance(block.bn1, nn.BatchNorm2d):
                raise ValueError(f"IBN-a replaces batch norms, not {type(block.bn1).__name__}")
            block.bn1 = InstanceBatchNorm(block.bn1.num_features, **self._factory())
        super().add_rga(config)


_register = partial(register_variant, __name__, RGAResNetIBN)
_IBNNET = imagenet_cfg(
    "resnet50.tv_in1k",  # the same preprocessing
    hf_hub_id=None,
    url="https://github.com/XingangPan/IBN-Net/releases/download/v1.0/resnet50_ibn_a-d9d0bb7b.pth",
    license="mit",
    origin_url="https://github.com/XingangPan/IBN-Net",
)
_register("rga_resnet50_ibn_a", "resnet50.tv_in1k", cfgs={"ibnnet_in1k": _IBNNET})
_SMALL: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 12, 16, 24)}
_register("test_rga_resnet_ibn", "resnet50.tv_in1k", for_tests=True, **_SMALL)
