"""Check by the embedding of a fixed image that a checkpoint still works."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_RECORDED = 16  # values of the embedding

# As a fraction of the embedding's length. Rounding differs by far less between machines.
TOLERANCE = 1e-4


def golden_image(height: int, width: int, channels: int = 3) -> Tensor:
    """Make an image of ramps, (channels, height, width), uint8, the same on all machines."""
    c, y, x = torch.meshgrid(
        torch.arange(channels), torch.arange(height), torch.arange(width), indexing="ij"
    )
    return ((3 * x * (c + 1) + 5 * y + 7 * (x * y // 16) + 60 * c) % 256).to(torch.uint8)


@torch.inference_mode()
def golden_embedding(model: Any) -> dict[str, Any]:
    """Embed :func:`golden_image`, preprocessed for a timm model on the CPU, whose mode stays.

    Returns:
        The embedding's ``width``, its ``norm``, and its first ``values``.
    """
    cfg = model.pretrained_cfg
    channels, height, width = cfg["input_size"]
    image = golden_image(height, width, channels).float() / 255
    mean, std = (torch.tensor(cfg[name])[:, None, None] for name in ("mean", "std"))
    training = model.training
    model.eval()
    maps = model.forward_features(((image - mean) / std)[None])
    embedding: Tensor = model.forward_head(maps, pre_logits=True)[0]
    model.train(training)
    return {
        "width": len(embedding),
        "norm": round(float(embedding.norm()), 6),
        "values": [round(float(value), 6) for value in embedding[:_RECORDED]],
    }


def check_golden(recorded: Mapping[str, Any], model: Any) -> None:
    """Raise a ValueError if a model's golden embedding differs from the recorded one."""
    found = golden_embedding(model)
    if found["width"] != recorded["width"]:
        values, wanted = found["width"], recorded["width"]
        raise ValueError(f"the embedding has {values} values, and {wanted} are recorded")
    # The norm stands for the values that are not recorded.
    a, b = (torch.tensor([*one["values"], one["norm"]]) for one in (found, recorded))
    difference = (a - b).abs().max().item()
    if not difference <= TOLERANCE * recorded["norm"]:
        raise ValueError(
            f"the embedding of the golden image differs by {difference:.2g} from the "
            f"recorded one, of length {recorded['norm']:.2g}"
        )
