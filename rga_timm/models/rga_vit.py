"""Vision Transformer with Relation-Aware Global Attention, for person re-identification.

Backbone: `An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale`, Dosovitskiy
et al., ICLR 2021, https://arxiv.org/abs/2010.11929. Attention: Zhang et al., CVPR 2020, see
rga_resnet.py.

timm's model with relation attention over the grid of patch tokens after each quarter of its blocks.
All blocks work at stride 16, so none is removed. The feature is the mean of the normalised patch
tokens, not the class token, which the attention does not change.
"""

import math
from functools import partial
from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d, _assert, resample_abs_pos_embed
from timm.models._manipulate import checkpoint_seq
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from rga_timm.layers import change_class, size_error

from ._create import register_variant
from ._rga import RGAConfig, RGAMixin, Size, StateDict

__all__ = ["RGAVisionTransformer"]


class RGABlock(Block):
    """timm's transformer block, with relation attention over the grid of its patch tokens."""

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Tokens x, (B, prefix + H·W, C), to tokens."""
        y = self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)
        x = x + self.drop_path1(self.ls1(y))
        x = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        prefix = self.num_prefix_tokens
        _assert(x.shape[1] == prefix + self.rga.height * self.rga.width, self.rga.size_error)
        maps = x[:, prefix:].transpose(1, 2).unflatten(2, (self.rga.height, self.rga.width))
        patches = self.rga(maps).flatten(2).transpose(1, 2)
        return torch.cat([x[:, :prefix], patches], dim=1)


class RGAVisionTransformer(RGAMixin, VisionTransformer):
    """Vision Transformer with relation-aware global attention, and a re-id head."""

    @classmethod
    def backbone_args(cls, img_size: Size, global_pool: str) -> dict[str, Any]:
        """Normalise before pooling, as in the pretrained models with class token."""
        args = {"img_size": img_size, "dynamic_img_size": False}
        return {**args, "global_pool": "avg", "fc_norm": False}

    def feat_size(self, img_size: Size, reduction: int) -> Size:
        """(H, W) of the grid of patches."""
        grid = self.patch_embed.dynamic_feat_size(img_size)
        return grid[0], grid[1]

    def rga_stages(self) -> list[tuple[str, dict[str, Any]]]:
        """The blocks at the end of each quarter of the depth."""
        ends = quarters(len(self.feature_info))
        return [(self.feature_info[i]["module"], self.feature_info[i]) for i in ends]

    def add_rga(self, config: RGAConfig) -> None:
        """Make the blocks with relation attention run it."""
        unsupported = {  # they change the grid, or what is pooled
            "dynamic_img_size": self.dynamic_img_size,
            "patch_drop_rate": not isinstance(self.patch_drop, nn.Identity),
            "fc_norm": not isinstance(self.fc_norm, nn.Identity),
            "pool_include_prefix": self.pool_include_prefix,
        }
        if used := ", ".join(name for name, is_used in unsupported.items() if is_used):
            raise ValueError(f"{used} cannot be combined with relation attention over the patches")
        super().add_rga(config)
        self.size_error = size_error("images", self.img_size)
        for block in self.blocks:
            if hasattr(block, "rga"):
                change_class(block, RGABlock)  # refuses timm's other kinds of blocks
                block.num_prefix_tokens = self.num_prefix_tokens

    def set_pool_type(self, pool_type: str, **kwargs: Any) -> None:
        """Change the pooling of the maps to timm's ``pool_type``."""
        self.global_pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type))

    def set_backbone_size(self, img_size: Size) -> None:
        """Resample the position embeddings."""
        VisionTransformer.set_input_size(self, img_size)
        self.size_error = size_error("images", img_size)

    def resample_backbone(self, weights: StateDict, img_size: Size | None) -> StateDict:
        """Resample position embeddings; those of a plain backbone are for square images."""
        pos_embed, reduction = weights.get("pos_embed"), self.feature_info[0]["reduction"]
        if pos_embed is None or pos_embed.ndim != 3:
            return weights
        prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        tokens = pos_embed.shape[1] - prefix
        new = self.feat_size(self.img_size, reduction)
        old = self.feat_size(img_size, reduction) if img_size else (math.isqrt(tokens),) * 2
        if old[0] * old[1] != tokens or old == new:
            return weights  # what does not fit is reported later with its shape
        pos_embed = resample_abs_pos_embed(pos_embed, new, old, prefix, verbose=True)
        return {**weights, "pos_embed": pos_embed}

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps of the patch tokens, (B, C, H, W), of images (B, in_chans, 16·H, 16·W)."""
        _assert(x.shape[2] == self.img_size[0], self.size_error)
        _assert(x.shape[3] == self.img_size[1], self.size_error)
        x = self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(x))))
        if self.grad_checkpointing and not torch.jit.is_scripting():
            x = checkpoint_seq(self.blocks, x)
        else:
            x = self.blocks(x)
        return self._to_maps(self.norm(x))

    def _to_maps(self, x: Tensor) -> Tensor:
        grid = self.patch_embed.grid_size
        return x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, (grid[0], grid[1]))

    def forward_intermediates(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run timm's method, with the final feature as maps."""
        out = super().forward_intermediates(x, *args, **kwargs)
        if isinstance(out, tuple):
            return self._to_maps(out[0]), out[1]
        if isinstance(out, dict) and "image_features" in out:
            return {**out, "image_features": self._to_maps(out["image_features"])}
        return out


def quarters(depth: int) -> tuple[int, ...]:
    """Indices of the last block of each quarter of the depth."""
    return tuple(sorted({math.ceil(depth * quarter / 4) - 1 for quarter in (1, 2, 3, 4)}))


def _feature_cfg(depth: int, **_: Any) -> dict[str, Any]:
    return {"out_indices": quarters(depth), "feature_cls": "getter"}


_register = partial(register_variant, __name__, RGAVisionTransformer, feature_cfg=_feature_cfg)
_register("rga_vit_small_patch16", "vit_small_patch16_224.augreg_in21k_ft_in1k", depth=12)
_register("test_rga_vit", "test_vit.r160_in1k", for_tests=True, depth=6)
