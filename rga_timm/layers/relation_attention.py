"""Relation-aware global attention over a set of nodes, without its affinity matrix.

Paper: `Relation-Aware Global Attention for Person Re-identification`, Zhang et al., CVPR 2020,
https://arxiv.org/abs/1904.02998, section 3.
"""

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class RelationAttention(nn.Module):
    """One attention weight a node, from the node's relations with every other node (section 3.1).

    The paper builds the affinity matrix ``G = Θᵀ Φ`` (M×M over M nodes), gives node ``p`` the
    relation vector ``[G[p, :], G[:, p]]`` of length 2M, and embeds it by a 1×1 convolution
    ``[W1, W2]``. That convolution is linear in G, and G is a product, so the two regroup::

        W1 G[p, :]ᵀ + W2 G[:, p] = (W1 Φᵀ) θ_p + (W2 Θᵀ) φ_p

    Forward and backward then need no M×M tensor. The parameters are the paper's, and so is the
    result, up to rounding. The multiplications of an image fall from (k + 2m)·M² to 4·k·m·M. The
    embedded relations, m×M, are still stored; as the paper has m = M/r, they grow with M², too.

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
        recompute: In the backward pass, compute what lies between the embeddings and the weights
            again. It is several times the size of the feature map, and cheap to compute.
    """

    def __init__(
        self,
        features: int,
        nodes: int,
        embed_dim: int,
        relation_dim: int,
        hidden_dim: int,
        zero_init: bool = False,
        recompute: bool = True,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.features = features
        self.nodes = nodes
        self.embed_dim = embed_dim
        self.recompute = recompute

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

    def forward(self, x: Tensor) -> Tensor:
        """Attention weights, (B, 1, M), each in (0, 1), of the nodes x, (B, F, M)."""
        return self.attend(self.project(x))

    def project(self, x: Tensor) -> Tensor:
        """θ, φ and g before their BN: (B, F, M) nodes to (B, 3k, M)."""
        if self.nodes > self.features:
            # A convolution would first reorder x, which is large here, to its own memory format.
            # (With more features than nodes it is the other way round: the product's weight
            # gradient, B matrices of 3k×F before they are summed, would be the large tensor.)
            w = self.embed.weight.flatten(1).expand(x.shape[0], -1, -1)
            return torch.bmm(w, x)
        return self.embed(x.unsqueeze(2)).squeeze(2)

    def attend(self, e: Tensor) -> Tensor:
        """From the projected nodes, (B, 3k, M), to their attention weights, (B, 1, M)."""
        if self.recompute and self.training and trains_eagerly():
            return self._attend_recomputed(e)
        return self._attend(e)

    def _attend(self, e: Tensor) -> Tensor:
        k = self.embed_dim
        e = self.embed_bn(e.unsqueeze(2)).squeeze(2)
        theta_phi, g = e.split([2 * k, k], dim=1)
        r = self.relations(theta_phi)  # (B, m, M)
        r = self.relation_bn(r.unsqueeze(2)).squeeze(2)
        # hidden([mean g, r]) by parts: concatenating would copy r only to add one channel to it.
        w_own, w_relation = self.hidden.weight.flatten(1).split([1, r.shape[1]], dim=1)
        h = torch.bmm(w_relation.expand(r.shape[0], -1, -1), r)  # (B, hidden, M)
        h = h + w_own * g.mean(dim=1, keepdim=True)
        h = self.hidden_bn(h.unsqueeze(2))
        return self.weight_bn(self.weight(h)).squeeze(2).sigmoid()

    def relations(self, theta_phi: Tensor) -> Tensor:
        """Embedded relations of all nodes, (B, m, M), from θ over φ, (B, 2k, M), factorised."""
        theta, phi = theta_phi.split(self.embed_dim, dim=1)  # (B, k, M) each
        w1, w2 = self.relation.weight.flatten(1).split(self.nodes, dim=1)  # (m, M) each
        # (W1 Φᵀ)ᵀ over (W2 Θᵀ)ᵀ, so that one product with [θ; φ] adds both sides.
        mixed = torch.cat([F.linear(phi, w1), F.linear(theta, w2)], dim=1)  # (B, 2k, m)
        return torch.bmm(mixed.transpose(1, 2), theta_phi)

    @torch.jit.unused
    def _attend_recomputed(self, e: Tensor) -> Tensor:
        options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        options["context_fn"] = lambda: (nullcontext(), _FrozenStatistics(self))
        return checkpoint(self._attend, e, **options)

    @torch.jit.unused
    def forward_scaled(self, x: Tensor, scale: Tensor) -> Tensor:
        """Attention weights, (B, 1, M), of ``x * scale``, x (B, F, M) and scale (B, F, 1).

        Backward computes ``x * scale`` again instead of keeping it, but not its projection.
        """
        options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        return self.attend(checkpoint(lambda x, s: self.project(x * s), x, scale, **options))


def trains_eagerly() -> bool:
    """Whether gradients are computed without a compiler, which decides itself what to keep."""
    if torch.jit.is_scripting():
        return False
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


class _FrozenStatistics:
    """Keep recomputation from updating the running statistics of batch norms a second time.

    It can be entered again, because a retained graph goes backward more than once.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]

    def __enter__(self) -> None:
        self.states = [(m.momentum, m.num_batches_tracked) for m in self.norms]
        for m in self.norms:
            # A copy that is thrown away; SyncBatchNorm refuses None.
            batches = m.num_batches_tracked
            m.momentum = 0.0
            m.num_batches_tracked = None if batches is None else batches.clone()

    def __exit__(self, *_: object) -> None:
        for m, (momentum, batches) in zip(self.norms, self.states, strict=True):
            m.momentum, m.num_batches_tracked = momentum, batches


def _bn_relu(dim: int, **dd: Any) -> nn.Sequential:
    """BN and ReLU of (B, dim, 1, M); batch norm would copy (B, dim, M) first."""
    return nn.Sequential(nn.BatchNorm2d(dim, **dd), nn.ReLU(inplace=True))
