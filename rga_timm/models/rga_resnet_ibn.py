"""ResNet-IBN with Relation-Aware Global Attention, for person re-identification.

Backbone: IBN-Net, `Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net`, Pan
et al., ECCV 2018, https://arxiv.org/abs/1807.09441. Attention: Zhang et al., CVPR 2020, see
rga_resnet.py.

timm's ResNet in which half of the channels after the first convolution of a block are normalised
over the image instead of over the batch. Parameters are named as in the checkpoints that the
paper's authors published.
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

    def __init__(
        self,
        num_features: int,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.halves = [num_features // 2, num_features - num_features // 2]
        self.IN = nn.InstanceNorm2d(self.halves[0], affine=True, device=device, dtype=dtype)
        self.BN = nn.BatchNorm2d(self.halves[1], device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, (B, C, H, W)."""
        over_image, over_batch = x.split(self.halves, dim=1)
        return torch.cat([self.IN(over_image), self.BN(over_batch)], dim=1)


class RGAResNetIBN(RGAResNet):
    """:class:`RGAResNet` with IBN-a in all blocks of the first three stages."""

    def add_rga(self, config: RGAConfig) -> None:
        """Put IBN-a in, then attention and head."""
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                if not isinstance(block.bn1, nn.BatchNorm2d):
                    raise ValueError(
                        f"IBN-a replaces batch norms; {type(block.bn1).__name__} is none"
                    )
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
