"""A fixed image and its embedding, by which a checkpoint shows that it works as it did."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_RECORDED = 16  # of the embedding's values

# Of the embedding's length. Other processors and versions round differently, in float32 by far less
# than this; weights stored in float16 are rounded before the embedding is recorded.
TOLERANCE = 1e-4


def golden_image(height: int, width: int, channels: int = 3) -> Tensor:
    """An image that follows from its size alone: ramps of different slopes in each channel.

    Returns:
        (channels, height, width), uint8. Whole numbers only, so the same everywhere.
    """
    c, y, x = torch.meshgrid(
        torch.arange(channels), torch.arange(height), torch.arange(width), indexing="ij"
    )
    return ((3 * x * (c + 1) + 5 * y + 7 * (x * y // 16) + 60 * c) % 256).to(torch.uint8)


@torch.inference_mode()
def golden_embedding(model: Any) -> dict[str, Any]:
    """The embedding of :func:`golden_image`, at the model's image size, normalised as it wants.

    Args:
        model: A timm model, on the CPU. With or without classifier; its mode is left as it was.

    Returns:
        ``width`` of the embedding, its ``norm``, and its first ``values``.
    """
    cfg = model.pretrained_cfg
    channels, height, width = cfg["input_size"]
    image = golden_image(height, width, channels).float() / 255
    mean, std = (torch.tensor(cfg[name])[:, None, None] for name in ("mean", "std"))
    training = model.training
    model.eval()
    embedding = _embedding(model, ((image - mean) / std)[None])[0]
    model.train(training)
    return {
        "width": len(embedding),
        "norm": round(float(embedding.norm()), 6),
        "values": [round(float(value), 6) for value in embedding[:_RECORDED]],
    }


def check_golden(recorded: Mapping[str, Any], model: Any) -> None:
    """Compare a model's golden embedding with the recorded one.

    Raises:
        ValueError: If they differ by more than rounding.
    """
    found = golden_embedding(model)
    if found["width"] != recorded["width"]:
        raise ValueError(
            f"the embedding has {found['width']} values, and {recorded['width']} are recorded"
        )
    # The whole length counts, too: the values are only the first ones.
    differences = [
        abs(a - b)
        for a, b in zip(
            [*found["values"], found["norm"]], [*recorded["values"], recorded["norm"]], strict=True
        )
    ]
    if not max(differences) <= TOLERANCE * recorded["norm"]:
        raise ValueError(
            f"the embedding of the golden image differs by {max(differences):.2g} from the "
            f"recorded one, of length {recorded['norm']:.2g}"
        )


def _embedding(model: nn.Module, images: Tensor) -> Tensor:
    features = model.forward_features(images)  # type: ignore[operator]
    embedding: Tensor = model.forward_head(features, pre_logits=True)  # type: ignore[operator]
    return embedding
