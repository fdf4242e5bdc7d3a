"""What is tested: a model's name and where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from rga_timm.evaluation.embedding.weights_hash import hash_weights


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
