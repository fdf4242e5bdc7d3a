"""What is tested: a model's name and where its weights come from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.utils import unwrap_model
from torch import nn


@dataclass(frozen=True)
class ModelRecord:
    """What a report says of the model that was tested.

    Attributes:
        name: As `timm.create_model` takes it, or as the user calls it.
        checkpoint: Where the weights are from; None for the model's own.
        weights: SHA-256 of `hash_weights`; None if it is not yet computed.
        trained_on: The data sets that the model was trained on, from `describe_training`; for the
            warning that people are both trained and tested on.
    """

    name: str
    checkpoint: str | None = None
    weights: str | None = None
    trained_on: Sequence[Mapping[str, Any]] = ()

    def with_hash_of(self, model: nn.Module) -> ModelRecord:
        """Return the record with the hash of the model's weights; compute it if it is missing."""
        return self if self.weights else replace(self, weights=hash_weights(model))


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
