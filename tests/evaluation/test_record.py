from __future__ import annotations

import copy
import hashlib

import pytest
import timm
import torch
from timm.utils import ModelEmaV3
from torch import nn

from rga_timm.evaluation import hash_weights


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3)


def test_it_is_the_hash_of_names_types_shapes_and_bytes() -> None:
    model = nn.BatchNorm1d(2)
    expected = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        expected.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        expected.update(value.numpy().tobytes())
    assert hash_weights(model) == expected.hexdigest()


def test_wrappers_and_memory_format_do_not_matter(model: nn.Module) -> None:
    expected = hash_weights(model)
    assert hash_weights(nn.DataParallel(model)) == expected
    assert hash_weights(ModelEmaV3(model)) == expected
    assert hash_weights(copy.deepcopy(model).to(memory_format=torch.channels_last)) == expected
    assert hash_weights(model.eval().requires_grad_(False)) == expected


def test_every_weight_counts(model: nn.Module) -> None:
    seen = {hash_weights(model)}
    for change in ("last bit", "buffer", "type", "classifier"):
        other = copy.deepcopy(model)
        if change == "last bit":
            bits = other.fc.bias.data.view(torch.int32)
            bits[0] ^= 1
        elif change == "buffer":
            next(iter(other.buffers())).add_(1)
        elif change == "type":
            other = other.bfloat16()
        else:
            other.reset_classifier(0)
        seen.add(hash_weights(other))
    assert len(seen) == 5
