"""The BN neck of person re-identification models."""

import torch
from torch import nn


def bn_neck(
    num_features: int, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> nn.BatchNorm1d:
    """Make the batch norm between the pooled feature and the classifier, without a bias.

    From `Bag of Tricks and a Strong Baseline for Deep Person Re-identification`, Luo et al.,
    CVPRW 2019, https://arxiv.org/abs/1903.07071, section 3.5: the triplet loss takes the (B, C)
    feature before it, classifier and retrieval the one after it. There the bias is frozen at 0;
    here there is none, so that every parameter gets a gradient.
    """
    neck = nn.BatchNorm1d(num_features, device=device, dtype=dtype)
    neck.register_parameter("bias", None)
    return neck


def pass_through(neck: nn.BatchNorm1d) -> None:
    """Make a neck return its input, (B, C), in evaluation mode, for retrieval by that feature.

    The neck divides by each channel's deviation, which amplifies the noise of channels that hardly
    vary. In training mode it still normalises. The old classifier no longer fits.
    """
    with torch.no_grad():
        assert neck.running_mean is not None
        assert neck.running_var is not None
        neck.running_mean.zero_()
        neck.running_var.fill_(1 - neck.eps)
        neck.weight.fill_(1)
