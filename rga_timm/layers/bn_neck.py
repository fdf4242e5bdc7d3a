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
    """
    neck = nn.BatchNorm1d(num_features, device=device, dtype=dtype)
    neck.register_parameter("bias", None)
    return neck


def pass_through(neck: nn.BatchNorm1d) -> None:
    """Make a neck return its input, (B, C), in evaluation mode, for retrieval by that feature.

    The neck divides by each channel's deviation, which hurts where some channels hardly ever
    change: their noise then counts as much as the others' signal. In training mode it still
    normalises by the batch. A classifier that was trained behind the neck does not fit any more.
    """
    with torch.no_grad():
        assert neck.running_mean is not None
        assert neck.running_var is not None
        neck.running_mean.zero_()
        neck.running_var.fill_(1 - neck.eps)
        neck.weight.fill_(1)
