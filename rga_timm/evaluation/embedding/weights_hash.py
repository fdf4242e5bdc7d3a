"""A name for a model's weights that follows from the weights alone."""

from __future__ import annotations

import hashlib

import torch
from timm.utils import unwrap_model
from torch import nn


def hash_weights(model: nn.Module) -> str:
    """SHA-256 of a model's state: two models with the same one have the same weights.

    Of the entries of the bare model's state dict, buffers too, sorted by name: name, type, shape
    and bytes. Where the model runs, its memory format, and what it is wrapped in do not matter.
    The classifier is part of it: the same network with and without one has two hashes.

    Args:
        model: any module, also inside DataParallel, DDP, torch.compile or timm's EMA.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in sorted(unwrap_model(model).state_dict().items()):
        if not isinstance(value, torch.Tensor):  # a module's extra state
            digest.update(f"{name} {value!r}\n".encode())
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        # As bytes: NumPy has no bfloat16. Flat first: a scalar cannot be seen as bytes.
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
