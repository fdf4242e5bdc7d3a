"""Relation-aware global attention over a set of nodes, without its affinity matrix.

Paper: `Relation-Aware Global Attention for Person Re-identification`, Zhang et al., CVPR 2020,
https://arxiv.org/abs/1904.02998, section 3.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .tiled_hidden import hidden_of_relations, is_worthwhile


class RelationAttention(nn.Module):
    """One attention weight a node, from the node's relations with every other node (section 3.1).

    The paper builds the affinity matrix ``G = Θᵀ Φ`` (M×M over M nodes), gives node ``p`` the
    relation vector ``[G[p, :], G[:, p]]`` of length 2M, and embeds it by a 1×1 convolution
    ``[W1, W2]``. That convolution is linear in G, and G is a product, so the two regroup::

        W1 G[p, :]ᵀ + W2 G[:, p] = (W1 Φᵀ) θ_p + (W2 Θᵀ) φ_p

    Forward and backward then need no M×M tensor. The parameters are the paper's, and so is the
    result, up to rounding. The multiplications of an image fall from (k + 2m)·M² to 4·k·m·M; as the
    paper has m = M/r, they still grow with M². On a CPU the embedded relations, m×M, exist only a
    tile at a time if they are many (:mod:`rga_timm.layers.tiled_hidden`), so that memory grows
    with M; elsewhere they are stored.

    RGA-S takes positions as nodes and channels as their features, RGA-C the other way round
    (:class:`rga_timm.layers.RGA`).

    Args:
        features: Features a node, F.
        nodes: Number of nodes, M.
        embed_dim: Width k of each of the embeddings θ, φ and g.
        relation_dim: Width m of the embedded relation vector.
        hidden_dim: Width of the hidden layer between relation and attention weight.
        zero_init: Start with all weights equal (1/2), by a zero scale of the last BN. The paper
            starts with random ones, which slow down a backbone that learns from scratch.
    """

    def __init__(
        self,
        features: int,
        nodes: int,
        embed_dim: int,
        relation_dim: int,
        hidden_dim: int,
        zero_init: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.features = features
        self.nodes = nodes
        self.embed_dim = embed_dim
        self.relation_dim = relation_dim

        # θ, φ and g read the same input: one convolution instead of three. Stacked in this order.
        self.embed = nn.Conv2d(features, 3 * embed_dim, 1, bias=False, **dd)
        self.embed_bn = _bn_relu(3 * embed_dim, **dd)
        # [W1, W2]: the first M inputs are G[p, :], the last M are G[:, p].
        self.relation = nn.Conv2d(2 * nodes, relation_dim, 1, bias=False, **dd)
        self.relation_bn = _bn_relu(relation_dim, **dd)
        # Input 0 is the node's own feature, the rest its embedded relations.
        self.hidden = nn.Conv2d(1 + relation_dim, hidden_dim, 1, bias=False, **dd)
        self.hidden_bn = _bn_relu(hidden_dim, **dd)
        self.weight = nn.Conv2d(hidden_dim, 1, 1, bias=False, **dd)
        self.weight_bn = nn.BatchNorm2d(1, **dd)
        if zero_init:
            nn.init.zeros_(self.weight_bn.weight)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Compute the attention weights of nodes, (B, 1, M), each in (0, 1).

        Args:
            x: The nodes, (B, F, M).
            scale: Factors of their features, (B, F, 1), if they are to be scaled before.
        """
        e = self.embed_bn(self.project(x, scale).unsqueeze(2)).squeeze(2)
        theta_phi, g = e.split([2 * self.embed_dim, self.embed_dim], dim=1)
        # hidden([mean g, r]) by parts: concatenating would copy r only to add one channel to it.
        w_own, w_relation = self.hidden.weight.flatten(1).split([1, self.relation_dim], dim=1)
        if self.is_tiled(theta_phi):
            h = self._hidden_by_tiles(theta_phi, w_relation)
        else:
            r = torch.bmm(self.mix(theta_phi), theta_phi)  # (B, m, M)
            r = self.relation_bn(r.unsqueeze(2)).squeeze(2)
            h = torch.bmm(w_relation.expand(r.shape[0], -1, -1), r)  # (B, hidden, M)
        h = h + w_own * g.mean(dim=1, keepdim=True)
        h = self.hidden_bn(h.unsqueeze(2))
        return self.weight_bn(self.weight(h)).squeeze(2).sigmoid()

    def project(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """θ, φ and g before their BN: (B, F, M) nodes, scaled, to (B, 3k, M)."""
        if self.nodes <= self.features and scale is None:
            return self.embed(x.unsqueeze(2)).squeeze(2)
        # A convolution would first reorder x, which is large here, to its own memory format.
        # (With more features than nodes it is the other way round: the product's weight
        # gradient, B matrices of 3k×F before they are summed, would be the large tensor.)
        w = self.embed.weight.flatten(1).expand(x.shape[0], -1, -1)
        if scale is None:
            return torch.bmm(w, x)
        # Scale what is smaller: the weight of each image, or its nodes.
        if 3 * self.embed_dim < self.nodes:
            return torch.bmm(w * scale.transpose(1, 2), x)
        return torch.bmm(w, x * scale)

    def mix(self, theta_phi: Tensor) -> Tensor:
        """Compute [W1 Φᵀ, W2 Θᵀ], (B, m, 2k), whose product with [θ; φ] adds both sides."""
        theta, phi = theta_phi.split(self.embed_dim, dim=1)  # (B, k, M) each
        w1, w2 = self.relation.weight.flatten(1).split(self.nodes, dim=1)  # (m, M) each
        return torch.cat([F.linear(phi, w1), F.linear(theta, w2)], dim=1).transpose(1, 2)

    def is_tiled(self, theta_phi: Tensor) -> bool:
        """Whether the embedded relations exist only a tile at a time: many, on a CPU, eagerly."""
        if torch.jit.is_scripting() or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return False
        # fx traces with proxies, which are not tensors, and must see the plain form.
        if not isinstance(theta_phi, Tensor) or theta_phi.device.type != "cpu":
            return False
        is_plain_norm = isinstance(self.relation_bn[0], _BatchNorm)
        return is_plain_norm and is_worthwhile(self.nodes, self.embed_dim, self.relation_dim)

    @torch.jit.unused
    def _hidden_by_tiles(self, theta_phi: Tensor, weight: Tensor) -> Tensor:
        norm = self.relation_bn[0]
        assert isinstance(norm, _BatchNorm)  # for the type checker
        return hidden_of_relations(self.mix(theta_phi), theta_phi, norm, weight)


def trains_eagerly() -> bool:
    """Whether gradients are computed without a compiler, which decides itself what to keep."""
    if torch.jit.is_scripting():
        return False
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _bn_relu(dim: int, **dd: Any) -> nn.Sequential:
    """BN and ReLU of (B, dim, 1, M); batch norm would copy (B, dim, M) first."""
    return nn.Sequential(nn.BatchNorm2d(dim, **dd), nn.ReLU(inplace=True))
