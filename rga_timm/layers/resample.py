"""Resample weights over the positions of a feature map to another map size."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resample_grid_weight(
    weight: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int]
) -> Tensor:
    """Resample weights that sum over the positions of a feature map to another map size.

    Input ``i`` of such a weight belongs to the position ``divmod(i, W)``. It is interpolated as an
    image and scaled by N_old / N_new, so that the sum over all positions keeps its size.

    Args:
        weight: (..., G·N_old) with G ≥ 1 images of N_old = H_old·W_old inputs side by side.
        old_grid: (H_old, W_old) of the weight.
        new_grid: (H_new, W_new) wanted.

    Returns:
        (..., G·N_new), in the data type of ``weight``.

    Raises:
        ValueError: If the last dimension is not a multiple of N_old.
    """
    n_old, n_new = old_grid[0] * old_grid[1], new_grid[0] * new_grid[1]
    if weight.shape[-1] % n_old:
        raise ValueError(
            f"a weight with {weight.shape[-1]} inputs does not lie on a grid of "
            f"{old_grid[0]}x{old_grid[1]} = {n_old} positions"
        )
    if tuple(old_grid) == tuple(new_grid):
        return weight
    images = weight.reshape(-1, 1, *old_grid)
    images = images.to(torch.promote_types(weight.dtype, torch.float32))
    # antialias: a coarser grid averages the positions that it merges instead of dropping some.
    images = F.interpolate(images, size=new_grid, mode="bicubic", antialias=True)
    images = images * (n_old / n_new)
    groups = weight.shape[-1] // n_old
    return images.reshape(*weight.shape[:-1], groups * n_new).to(weight.dtype)
