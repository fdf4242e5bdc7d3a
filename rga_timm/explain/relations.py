"""Show the relations of one position with all others (Zhang et al., CVPR 2020, section 3.2)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rga_timm.explain.inputs import attention_modules, visit_inputs
from rga_timm.layers import RGA


@dataclass(frozen=True)
class Relations:
    """Affinities of one position p with all positions, in both directions.

    Attributes:
        outgoing: (B, H, W), ``G[p, k] = θ_p · φ_k`` of p with every k.
        incoming: (B, H, W), ``G[k, p] = θ_k · φ_p`` of every k with p.
    """

    outgoing: Tensor
    incoming: Tensor


def relations_of(
    model: Any, images: Tensor, position: tuple[int, int], stage: int | str = -1
) -> Relations:
    """Compute one position's relation vector: its row and column of the affinity matrix.

    Args:
        model: An RGA model with RGA-S. It is left as it was.
        images: (B, in_chans, height, width), preprocessed for the model, on its device.
        position: (row, column) on the stage's feature map.
        stage: Name of the attention module, or its index, negative from the last.

    Raises:
        ValueError: There is no such stage or position, or the stage has no RGA-S.
    """
    modules = attention_modules(model)
    wanted = _stage_name(list(modules), stage)
    rga = modules[wanted]
    if rga.relation == "c":
        raise ValueError(f"{wanted} is RGA-C: it relates channels, not positions")
    row, column = position
    if not (0 <= row < rga.height and 0 <= column < rga.width):
        size = f"{rga.height}x{rga.width}"
        raise ValueError(f"position {position} is not on the map of {wanted}, {size}")
    found: list[Relations] = []

    def visit(name: str, rga: RGA, x: Tensor) -> None:
        if name != wanted:
            return
        if rga.relation == "cs":
            x = x * rga.channel_attention(x)
        attention, k, p = rga.spatial, rga.spatial.embed_dim, row * rga.width + column
        embedded = attention.embed_bn(attention.project(x.flatten(2)).unsqueeze(2)).squeeze(2)
        theta, phi = embedded[:, :k], embedded[:, k : 2 * k]  # (B, k, N)
        outgoing, incoming = theta[:, :, p, None].mT @ phi, phi[:, :, p, None].mT @ theta
        shape = (len(x), rga.height, rga.width)
        found.append(Relations(outgoing.reshape(shape), incoming.reshape(shape)))

    visit_inputs(model, images, visit)
    return found[0]


def _stage_name(names: list[str], stage: int | str) -> str:
    if isinstance(stage, int) and -len(names) <= stage < len(names):
        return names[stage]
    if isinstance(stage, str) and stage in names:
        return stage
    raise ValueError(f"there is no attention {stage!r}: there are {', '.join(names)}")
