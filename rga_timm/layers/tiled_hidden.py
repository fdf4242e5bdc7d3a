"""From relations to the hidden layer, without the embedded relations of all nodes in memory.

Relation attention embeds the relations of the nodes, ``r = A z`` of each image, normalises and
rectifies them, and multiplies them by the hidden layer's weight. For many nodes, r is larger than
the feature map. As it is linear in z, its batch statistics follow from sums over z, and the rest
goes tile by tile over the nodes. Backward computes each tile once more.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

# Elements of a tile of r: 1 MiB of float32, which a processor's second cache holds.
_TILE = 2**18

# From so many embedded relations of an image on, they are worth computing twice ...
_MANY = 2**17
# ... if that takes fewer multiplications a relation. Both were measured on CPUs.
_MULTIPLICATIONS = 96


class Moments(NamedTuple):
    """Statistics of r over all images and nodes, and of all processes with SyncBatchNorm."""

    mean: Tensor  # (m,) float64
    var: Tensor  # (m,) float64, biased
    size: int  # images times nodes


def is_worthwhile(nodes: int, embed_dim: int, relation_dim: int) -> bool:
    """Whether tiles are faster on a CPU, for M nodes, k embeddings each of θ and φ, m relations."""
    relations = nodes * relation_dim
    # Again the relations; the sums for their statistics; and these mixed, forward and backward.
    products = 2 * embed_dim * relations + 4 * embed_dim**2 * (nodes + 3 * relation_dim)
    return relations >= _MANY and products <= _MULTIPLICATIONS * relations


def hidden_of_relations(mix: Tensor, z: Tensor, norm: _BatchNorm, weight: Tensor) -> Tensor:
    """Compute ``weight @ relu(norm(mix @ z))`` of each image, and update the running statistics.

    Args:
        mix: (B, m, c), the weights by which the c embeddings of a node become its relations.
        z: (B, c, M), the embeddings of the M nodes.
        norm: The batch norm of the m relations.
        weight: (h, m) of the hidden layer.

    Returns:
        (B, h, M).
    """
    group = None
    if norm.training or norm.running_mean is None:
        if isinstance(norm, nn.SyncBatchNorm) and dist.is_initialized():
            group = norm.process_group or dist.group.WORLD
        own, moments = _batch_moments(mix.detach(), z.detach(), group)
        if norm.training and norm.track_running_stats:
            _update_running_statistics(norm, moments)
    else:
        var = norm.running_var
        assert var is not None  # for the type checker
        own, moments = None, Moments(norm.running_mean.double(), var.double(), 0)
    scale, shift = norm.weight, norm.bias
    return _TiledHidden.apply(mix, z, scale, shift, weight, moments, norm.eps, own, group)


class _Centred(NamedTuple):
    """What the gradient through batch statistics needs of each image."""

    mean: Tensor  # (B, c) of z
    relation_mean: Tensor  # (B, m) float64, of r
    mixed_scatter: Tensor  # (B, m, c), A Σ (z - mean)(z - mean)ᵀ


def _batch_moments(mix: Tensor, z: Tensor, group: Any) -> tuple[_Centred, Moments]:
    """Compute the statistics of ``mix @ z`` from sums over z.

    Centred by image first: a difference of large squares would lose the variance in float32.
    """
    kind = torch.promote_types(z.dtype, torch.float32)
    with torch.autocast(z.device.type, enabled=False):
        mean = z.mean(dim=2, dtype=kind)
        centred = z.to(kind) - mean.unsqueeze(2)
        mix = mix.to(kind)
        mixed_scatter = torch.bmm(mix, torch.bmm(centred, centred.transpose(1, 2)))
        within = (mixed_scatter * mix).sum(dim=2).double()  # (B, m), Σ (r - its mean)²
        relation_mean = torch.bmm(mix.double(), mean.double().unsqueeze(2)).squeeze(2)
    count = z.shape[0] * z.shape[2]
    total = relation_mean.mean(dim=0)
    squares = within.sum(dim=0) + z.shape[2] * (relation_mean - total).square().sum(dim=0)
    if group is not None:
        own = torch.cat([total, squares, total.new_tensor([count])])
        found = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(found, own, group)
        means, squares, counts = torch.stack(found).split([len(total), len(total), 1], dim=1)
        count = int(counts.sum())
        total = (means * counts).sum(dim=0) / count
        squares = (squares + counts * (means - total).square()).sum(dim=0)
    return _Centred(mean, relation_mean, mixed_scatter), Moments(total, squares / count, count)


@torch.no_grad()
def _update_running_statistics(norm: _BatchNorm, moments: Moments) -> None:
    mean, var, batches = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert mean is not None
    assert var is not None
    assert batches is not None
    batches.add_(1)
    momentum = 1 / batches.item() if norm.momentum is None else norm.momentum
    unbiased = moments.var * (moments.size / max(moments.size - 1, 1))
    mean.lerp_(moments.mean.to(mean.dtype), momentum)
    var.lerp_(unbiased.to(var.dtype), momentum)


class _TiledHidden(torch.autograd.Function):
    """The product, normalisation, rectification and product, with their gradients."""

    @staticmethod
    def forward(
        ctx: Any, mix: Tensor, z: Tensor, scale: Tensor, shift: Tensor, weight: Tensor,
        moments: Moments, eps: float, own: _Centred | None, group: Any,
    ) -> Tensor:  # fmt: skip
        """As `hidden_of_relations`; ``own`` is None if the statistics are fixed."""
        rstd = (moments.var + eps).rsqrt()
        # The norm, folded into the product before it.
        folded = (mix * (scale * rstd)[:, None].to(scale.dtype)).to(z.dtype)
        offset = (shift - scale * rstd * moments.mean).to(z.dtype)
        weight = weight.to(z.dtype)
        h = z.new_empty(z.shape[0], weight.shape[0], z.shape[2])
        with torch.autocast(z.device.type, enabled=False):
            for image, nodes in _tiles(z, mix.shape[1]):
                r = torch.addmm(offset[:, None], folded[image], z[image, :, nodes]).relu_()
                torch.mm(weight, r, out=h[image, :, nodes])
        ctx.save_for_backward(mix, z, scale, weight, folded, offset, rstd, moments.mean)
        ctx.size, ctx.own, ctx.group = moments.size, own, group
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradients of the tensors."""
        with torch.autocast(grad.device.type, enabled=False):
            return _gradients(ctx, grad)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Go over the tiles once more; y is the norm's output."""
    mix, z, scale, weight, folded, offset, rstd, mean = ctx.saved_tensors
    B, m, c = mix.shape
    kind = torch.promote_types(z.dtype, torch.float32)
    grad_z = torch.empty_like(z, memory_format=torch.contiguous_format)
    grad_weight = z.new_zeros(weight.shape, dtype=kind)
    products = z.new_zeros((B, m, c), dtype=kind)  # Σ dy zᵀ of each image
    sums = z.new_zeros((B, m), dtype=kind)  # Σ dy of each image
    for image, nodes in _tiles(z, m):
        tile, grad_h = z[image, :, nodes], grad[image, :, nodes]
        r = torch.addmm(offset[:, None], folded[image], tile).relu_()
        grad_weight += torch.mm(grad_h, r.t())
        grad_y = torch.mm(weight.t(), grad_h).mul_(r.sign_())
        products[image] += torch.mm(grad_y, tile.t())
        sums[image] += grad_y.sum(dim=1)
        torch.mm(folded[image].t(), grad_y, out=grad_z[image, :, nodes])

    grad_shift = sums.sum(dim=0, dtype=torch.float64)
    grad_scale = (products * mix).sum(dim=(0, 2), dtype=torch.float64)
    grad_scale = rstd * (grad_scale - mean * grad_shift)
    slope = scale * rstd  # dr of dy, were the statistics fixed
    grad_mix = slope[:, None] * products
    if ctx.own is not None:
        of_shift, of_scale = grad_shift, grad_scale
        if ctx.group is not None:
            both = torch.stack([of_shift, of_scale])
            dist.all_reduce(both, group=ctx.group)
            of_shift, of_scale = both
        # dr = slope dy - constant - linear (r - mean)
        constant, linear = slope * of_shift / ctx.size, slope * rstd * of_scale / ctx.size
        of_mean, relation_mean, mixed_scatter = ctx.own
        M = z.shape[2]
        means = constant + linear * (relation_mean - mean)  # (B, m), of dr over the nodes
        grad_mix = grad_mix - linear[:, None] * mixed_scatter
        grad_mix -= M * means[:, :, None] * of_mean[:, None, :]
        wide = mix.to(kind)
        quadratic = torch.bmm(wide.transpose(1, 2), linear[:, None].to(kind) * wide)
        fixed = torch.matmul((linear * mean - constant).to(kind), wide)  # (B, c)
        grad_z -= torch.baddbmm(-fixed[:, :, None].to(z.dtype), quadratic.to(z.dtype), z)
    return (
        grad_mix.to(mix.dtype), grad_z, grad_scale.to(scale.dtype), grad_shift.to(scale.dtype),
        grad_weight.to(scale.dtype), None, None, None, None,
    )  # fmt: skip


def _tiles(z: Tensor, width: int) -> Iterator[tuple[int, slice]]:
    """Go over the images, and in each over slices of nodes with a tile of relations each."""
    nodes = z.shape[2]
    step = -(-nodes // -(-nodes * width // _TILE))  # tiles of equal size
    for image in range(z.shape[0]):
        for start in range(0, nodes, step):
            yield image, slice(start, start + step)
