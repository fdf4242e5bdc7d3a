"""The BN neck of person re-identification models."""

import torch
from torch import nn


def bn_neck(
    num_features: int, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> nn.BatchNorm1d:
    """Batch norm between the pooled feature and the classifier, without a bias.

    From `Bag of Tricks and a Strong Baseline for Deep Person Re-identification`, Luo et al.,
    CVPRW 2019, https://arxiv.org/abs/1903.07071, section 3.5: the triplet loss sees (B, C) before
    it, classifier and retrieval see (B, C) after it. The bias does not exist, rather than being
    frozen at 0, so that every parameter of the model gets a gradient.

    Args:
        num_features: Width C of the pooled feature.
        device: Device of the parameters.
        dtype: Data type of the parameters.
    """
    neck = nn.BatchNorm1d(num_features, device=device, dtype=dtype)
    neck.register_parameter("bias", None)
    return neck


def pass_through(neck: nn.BatchNorm1d) -> None:
    """Make a neck give what it gets, in evaluation mode: (B, C), the same to float's precision.

    For retrieval by the pooled feature. The neck divides by each channel's deviation, which hurts
    where some channels hardly ever change: their noise then counts as much as the others' signal. A
    classifier that was trained on what the neck gave does not fit any more.

    Args:
        neck: Of :func:`bn_neck`; in training mode it goes on normalising by the batch.
    """
    with torch.no_grad():
        assert neck.running_mean is not None
        assert neck.running_var is not None
        neck.running_mean.zero_()
        neck.running_var.fill_(1 - neck.eps)
        neck.weight.fill_(1)
