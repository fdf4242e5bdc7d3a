"""The attention weights of each stage (Zhang et al., CVPR 2020, sections 3.2 and 3.3)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rga_timm.explain.inputs import visit_inputs
from rga_timm.layers import RGA


@dataclass(frozen=True)
class StageAttention:
    """Attention weights of the positions and channels at the end of a stage.

    Attributes:
        name: The module's name, such as ``layer1.rga``.
        spatial: (B, H, W), in (0, 1); None without RGA-S.
        channel: (B, C), in (0, 1); None without RGA-C.
    """

    name: str
    spatial: Tensor | None
    channel: Tensor | None


def attention_maps(model: Any, images: Tensor) -> list[StageAttention]:
    """Compute the attention weights that a model gives images.

    Args:
        model: An RGA model of this package. It is left as it was.
        images: (B, in_chans, height, width), preprocessed for the model, on its device.

    Returns:
        The weights of each stage with attention, from input to output.

    Raises:
        ValueError: The model has no attention, or the images are of another size.
    """
    stages = []

    def visit(name: str, rga: RGA, x: Tensor) -> None:
        weights: dict[str, Tensor] = {}
        for kind in "sc" if rga.relation == "parallel" else rga.relation:
            weights[kind] = rga.spatial_attention(x) if kind == "s" else rga.channel_attention(x)
            if rga.relation != "parallel":
                x = x * weights[kind]
        spatial, channel = weights.get("s"), weights.get("c")
        spatial = None if spatial is None else spatial.squeeze(1)
        channel = None if channel is None else channel.flatten(1)
        stages.append(StageAttention(name, spatial, channel))

    visit_inputs(model, images, visit)
    return stages
