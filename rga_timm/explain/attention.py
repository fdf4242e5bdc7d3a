"""The attention weights of each stage (Zhang et al., CVPR 2020, sections 3.2 and 3.3)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rga_timm.explain.inputs import visit_inputs
from rga_timm.layers import RGA


@dataclass(frozen=True)
class StageAttention:
    """What the attention at the end of a stage gave each position and each channel.

    Attributes:
        name: Of the module, such as ``layer1.rga``.
        spatial: (B, H, W) weights of the positions, in (0, 1); None without RGA-S.
        channel: (B, C) weights of the channels, in (0, 1); None without RGA-C.
    """

    name: str
    spatial: Tensor | None
    channel: Tensor | None


def attention_maps(model: Any, images: Tensor) -> list[StageAttention]:
    """Compute the attention weights that a model gives images.

    Args:
        model: An RGA model of this package. Its mode is left as it was, and no hook stays.
        images: (B, in_chans, height, width), preprocessed for the model, on its device.

    Returns:
        One for each stage with attention, from input to output.

    Raises:
        ValueError: The model has no attention, or the images are of another size.
    """
    stages = []

    def visit(name: str, rga: RGA, x: Tensor) -> None:
        spatial, channel = _weights(rga, x)
        spatial = None if spatial is None else spatial.squeeze(1)
        channel = None if channel is None else channel.flatten(1)
        stages.append(StageAttention(name, spatial, channel))

    visit_inputs(model, images, visit)
    return stages


def _weights(rga: RGA, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """A module's weights of positions, (B, 1, H, W), and of channels, (B, C, 1, 1)."""
    if rga.relation == "cs":
        channel = rga.channel_attention(x)
        return rga.spatial_attention(x * channel), channel
    if rga.relation == "c":
        return None, rga.channel_attention(x)
    spatial = rga.spatial_attention(x)
    if rga.relation == "s":
        return spatial, None
    return spatial, rga.channel_attention(x * spatial if rga.relation == "sc" else x)
