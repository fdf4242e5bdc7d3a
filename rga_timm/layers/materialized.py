"""The published form of relation attention, a reference for tests and the benchmark.

It gives the same result as :class:`RelationAttention` at several times the cost.
"""

import torch
from torch import Tensor, nn

from .change_class import change_class
from .relation_attention import RelationAttention


class MaterializedRelationAttention(RelationAttention):
    """:class:`RelationAttention` with the (B, M, M) affinity matrix and (B, 2M, M) relations."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Attention weights, (B, 1, M), of the nodes x, (B, F, M), scaled by (B, F, 1)."""
        x = x if scale is None else x * scale
        e = self.embed_bn(self.embed(x.unsqueeze(-1))).squeeze(-1)
        theta, phi, g = e.chunk(3, dim=1)  # (B, k, M) each
        affinity = torch.bmm(theta.transpose(1, 2), phi)  # G[i, j] = θ_i · φ_j
        # Column p holds the relation vector of node p: G[p, :] over G[:, p].
        stacked = torch.cat([affinity.transpose(1, 2), affinity], dim=1)
        r = self.relation_bn(self.relation(stacked.unsqueeze(-1)))
        y = torch.cat([g.mean(dim=1, keepdim=True).unsqueeze(-1), r], dim=1)
        a = self.weight_bn(self.weight(self.hidden_bn(self.hidden(y))))
        return a.squeeze(-1).sigmoid()


def materialize(module: nn.Module) -> nn.Module:
    """Put every relation attention in ``module`` into the published form, in place.

    Parameters and buffers are the same tensors, so state dicts and optimizers stay valid.
    """
    for m in module.modules():
        if isinstance(m, RelationAttention):
            change_class(m, MaterializedRelationAttention)
    return module
