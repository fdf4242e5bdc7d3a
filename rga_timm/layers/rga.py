"""The paper's two modules and their combinations, on feature maps.

Paper: `Relation-Aware Global Attention for Person Re-identification`, Zhang et al., CVPR 2020,
https://arxiv.org/abs/1904.02998, sections 3.2 (RGA-S), 3.3 (RGA-C) and 4.2 (combinations).
"""

from typing import Any

import torch
from timm.layers import _assert
from torch import Tensor, nn

from .relation_attention import RelationAttention, trains_eagerly
from .resample import resample_grid_weight

RELATIONS = ("none", "s", "c", "sc", "cs", "parallel")


class RGA(nn.Module):
    """Relation-aware global attention of a feature map.

    RGA-S weighs the positions: nodes are the H·W positions, their features the C channels.
    RGA-C weighs the channels: nodes are the C channels, their features the H·W positions.

    Args:
        dim: Channels C of the feature map.
        feat_size: (H, W) of the feature map.
        relation: ``'s'`` (RGA-S), ``'c'`` (RGA-C), ``'sc'`` (S, then C: the paper's best), ``'cs'``
            (C, then S) or ``'parallel'`` (both from the input, both applied to it).
        native_feat_size: (H, W) that sets the widths N/r of the layers over positions; by default
            ``feat_size``. It stays when the map size changes, so that parameters can be resampled.
        reduction: The paper's r, for embeddings, relations and hidden layers alike.
        zero_init: As in :class:`RelationAttention`.

    Raises:
        ValueError: For an unknown relation.
    """

    def __init__(
        self,
        dim: int,
        feat_size: tuple[int, int],
        relation: str = "sc",
        native_feat_size: tuple[int, int] | None = None,
        reduction: int = 8,
        zero_init: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if relation not in RELATIONS[1:]:
            raise ValueError(f"unknown relation {relation!r}: one of {', '.join(RELATIONS[1:])}")
        dd: dict[str, Any] = {"zero_init": zero_init, "device": device, "dtype": dtype}
        self.relation = relation
        self.height, self.width = feat_size
        self.size_error = size_error("a feature map", feat_size)
        native = native_feat_size or feat_size
        nodes = self.height * self.width
        dim_width = max(1, dim // reduction)
        node_width = max(1, native[0] * native[1] // reduction)

        def attention(
            features: int, nodes: int, embed_dim: int, relation_dim: int
        ) -> RelationAttention:
            widths = (embed_dim, relation_dim, max(1, (1 + relation_dim) // reduction))
            return RelationAttention(features, nodes, *widths, **dd)

        self.spatial: Any = _Absent()
        self.channel: Any = _Absent()
        if relation != "c":
            self.spatial = attention(dim, nodes, dim_width, node_width)
        if relation != "s":
            self.channel = attention(nodes, dim, node_width, dim_width)

    @torch.jit.ignore
    @torch.no_grad()
    def set_feat_size(self, feat_size: tuple[int, int]) -> None:
        """Change the feature map's size (H, W), resampling the weights that look at positions."""
        old = (self.height, self.width)
        nodes = feat_size[0] * feat_size[1]
        for key, grids in self.position_weights().items():
            conv = self.get_submodule(key.removesuffix(".weight"))
            assert isinstance(conv, nn.Conv2d)  # for the type checker
            weight = resample_grid_weight(conv.weight.flatten(1), old, feat_size)[..., None, None]
            conv.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
            conv.in_channels = grids * nodes
        if isinstance(self.spatial, RelationAttention):
            self.spatial.nodes = nodes
        if isinstance(self.channel, RelationAttention):
            self.channel.features = nodes
        self.height, self.width = feat_size
        self.size_error = size_error("a feature map", feat_size)

    @torch.jit.ignore
    def position_weights(self) -> dict[str, int]:
        """Names of the weights whose inputs are positions, and how many grids wide they are."""
        weights = {"spatial.relation.weight": 2, "channel.embed.weight": 1}
        own = dict(self.named_parameters())
        return {name: grids for name, grids in weights.items() if name in own}

    def spatial_attention(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """RGA-S weights, (B, 1, H, W) in (0, 1), of a feature map.

        Args:
            x: The feature map, (B, C, H, W).
            scale: Factors of its channels, (B, C, 1, 1), if they are to be scaled before.
        """
        scale = None if scale is None else scale.flatten(2)
        return self.spatial(x.flatten(2), scale).unflatten(2, (self.height, self.width))

    def channel_attention(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """RGA-C weights, (B, C, 1, 1) in (0, 1); `scale` is of positions, (B, 1, H, W)."""
        scale = None if scale is None else scale.flatten(2).transpose(1, 2)
        nodes = x.flatten(2).transpose(1, 2)
        return self.channel(nodes, scale).transpose(1, 2).unsqueeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the feature map x, (B, C, H, W), by its attention."""
        _assert(x.shape[2] == self.height, self.size_error)
        _assert(x.shape[3] == self.width, self.size_error)
        if self.relation == "s":
            return x * self.spatial_attention(x)
        if self.relation == "c":
            return x * self.channel_attention(x)
        if self.relation == "cs":
            channel = self.channel_attention(x)
            spatial = self.spatial_attention(x, channel)
        else:
            spatial = self.spatial_attention(x)
            channel = self.channel_attention(x, spatial if self.relation == "sc" else None)
        # fx traces with proxies, which are not tensors, and must see the plain form.
        if self.training and isinstance(x, Tensor) and trains_eagerly():
            return self._weigh_by_both(x, spatial, channel)
        return x * spatial * channel

    @torch.jit.unused
    def _weigh_by_both(self, x: Tensor, spatial: Tensor, channel: Tensor) -> Tensor:
        return WeighByBoth.apply(x, spatial, channel)


class _Absent(nn.Identity):
    """In place of an attention that a module does not have, for TorchScript to compile its call."""

    def forward(self, input: Tensor, scale: Tensor | None = None) -> Tensor:  # noqa: A002 - torch's
        """Return the input."""
        return input


class WeighByBoth(torch.autograd.Function):
    """Compute ``x * spatial * channel`` so that backward keeps only these three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spatial: Tensor, channel: Tensor) -> Tensor:
        """Multiply x, (B, C, H, W), by (B, 1, H, W) and (B, C, 1, 1)."""
        ctx.save_for_backward(x, spatial, channel)
        return x * spatial * channel

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the gradients; matrix products take the sums over positions and channels."""
        x, spatial, channel = ctx.saved_tensors
        grad_x = grad * spatial * channel
        products = (grad * x).flatten(2)  # (B, C, N)
        s = spatial.flatten(2).to(products.dtype)  # (B, 1, N)
        c = channel.flatten(2).to(products.dtype)  # (B, C, 1)
        grad_spatial = torch.bmm(c.transpose(1, 2), products).view_as(spatial)
        grad_channel = torch.bmm(products, s.transpose(1, 2)).view_as(channel)
        return grad_x, grad_spatial, grad_channel


def size_error(what: str, size: tuple[int, int]) -> str:
    """The message for an input, such as a feature map, of another size than (H, W)."""
    return (
        f"This model expects {what} of {size[0]}x{size[1]} (height x width) here. For images of "
        "another size create it with img_size=(height, width), or call "
        "model.set_input_size((height, width))."
    )
