"""RGA as the paper's section 3 tells it: node by node, without any regrouping.

Slow on purpose. It takes the parameters of the layers under test, and nothing of their code.
"""

import torch
from torch import Tensor, nn


def slow_batch_norm(x: Tensor, norm: nn.Module, statistics: dict[nn.Module, tuple]) -> Tensor:
    """Batch norm of (B, D, M) over B and M; training notes the new statistics, changing nothing."""
    if norm.training:
        n = x.shape[0] * x.shape[2]
        mean = x.sum((0, 2)) / n
        var = ((x - mean[:, None]) ** 2).sum((0, 2)) / n
        m = norm.momentum
        statistics[norm] = (
            ((1 - m) * norm.running_mean + m * mean).detach(),
            ((1 - m) * norm.running_var + m * var * n / (n - 1)).detach(),
            norm.num_batches_tracked + 1,
        )
    else:
        mean, var = norm.running_mean, norm.running_var
    normalised = (x - mean[:, None]) / torch.sqrt(var[:, None] + norm.eps)
    return normalised * norm.weight[:, None] + norm.bias[:, None]


def slow_attention(attention: nn.Module, nodes: Tensor, statistics: dict) -> Tensor:
    """(B, F, M) nodes to (B, 1, M) weights."""

    def dense(weight: Tensor, x: Tensor) -> Tensor:  # a 1×1 convolution
        return (weight.flatten(1)[None, :, :, None] * x[:, None]).sum(2)

    def bn(x: Tensor, norm: nn.Module) -> Tensor:
        return slow_batch_norm(x, norm, statistics)

    embeddings = bn(dense(attention.embed.weight, nodes), attention.embed_bn[0]).clamp(min=0)
    k = embeddings.shape[1] // 3
    theta, phi, g = embeddings[:, :k], embeddings[:, k : 2 * k], embeddings[:, 2 * k :]

    count = nodes.shape[2]
    relation_vectors = []
    for p in range(count):
        towards = [(theta[:, :, p] * phi[:, :, q]).sum(1) for q in range(count)]  # G[p, q]
        back = [(theta[:, :, q] * phi[:, :, p]).sum(1) for q in range(count)]  # G[q, p]
        relation_vectors.append(torch.stack(towards + back, dim=1))
    relations = torch.stack(relation_vectors, dim=2)  # (B, 2M, M)
    relations = bn(dense(attention.relation.weight, relations), attention.relation_bn[0])

    y = torch.cat([g.mean(1, keepdim=True), relations.clamp(min=0)], dim=1)
    hidden = bn(dense(attention.hidden.weight, y), attention.hidden_bn[0]).clamp(min=0)
    weight = bn(dense(attention.weight.weight, hidden), attention.weight_bn)
    return 1 / (1 + torch.exp(-weight))


def slow_rga(rga: nn.Module, x: Tensor) -> tuple[Tensor, dict[nn.Module, tuple]]:
    """The weighted feature map, and each batch norm's statistics after this training step."""
    b, c, h, w = x.shape
    statistics: dict[nn.Module, tuple] = {}

    def spatial(x: Tensor) -> Tensor:
        positions = torch.stack([x[:, :, i, j] for i in range(h) for j in range(w)], dim=2)
        return slow_attention(rga.spatial, positions, statistics).reshape(b, 1, h, w)

    def channel(x: Tensor) -> Tensor:
        channels = torch.stack([x[:, i].reshape(b, h * w) for i in range(c)], dim=2)
        return slow_attention(rga.channel, channels, statistics).reshape(b, c, 1, 1)

    steps = {"s": [spatial], "c": [channel], "sc": [spatial, channel], "cs": [channel, spatial]}
    if rga.relation == "parallel":
        return spatial(x) * channel(x) * x, statistics
    for step in steps[rga.relation]:
        x = x * step(x)
    return x, statistics
