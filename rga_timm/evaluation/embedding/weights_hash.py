"""Identify a model's weights."""

from __future__ import annotations

import hashlib

import torch
from timm.utils import unwrap_model
from torch import nn


def hash_weights(model: nn.Module) -> str:
    """Compute the SHA-256 of a model's weights, 64 hexadecimal digits.

    It covers name, type, shape and bytes of all parameters and buffers, also the classifier's,
    sorted by name. Device, memory format and wrappers (DataParallel, DDP, torch.compile, timm's
    EMA) do not matter.
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
