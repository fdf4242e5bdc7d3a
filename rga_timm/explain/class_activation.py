"""Show which positions make two images similar to a timm model, by Grad-CAM.

Selvaraju et al., ICCV 2017, with the package grad-cam (extra ``cam``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rga_timm.explain.inputs import restored_modes


def similarity_activation(
    model: Any, images: Tensor, references: Tensor | None = None, layer: nn.Module | None = None
) -> Tensor:
    """Show what in an image raises the cosine similarity of its embedding with a reference's.

    Args:
        model: Any timm model whose last feature maps are (B, C, H, W). It is left as it was.
        images: (B, in_chans, height, width), preprocessed for the model, on its device.
        references: An image for each to compare with; if None, show what raises the embedding's
            length, as no image can be more similar to itself.
        layer: The layer of the feature maps; by default the last stage.

    Returns:
        (B, height, width) float32 on the CPU, from 0 (no or a negative effect) to 1 (the largest).

    Raises:
        ImportError: Without the package grad-cam.
        ValueError: If the number of references differs, or the model names no stages.
    """
    try:
        from pytorch_grad_cam import GradCAM
    except ImportError as error:
        raise ImportError(
            "class activation needs the package grad-cam: pip install 'rga-timm[cam]'"
        ) from error
    if references is not None and len(references) != len(images):
        raise ValueError(f"{len(images)} images have {len(references)} references, not one each")
    layer = layer or _last_stage(model)
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    with restored_modes(model):
        model.eval()
        try:
            targets: list[Callable[[Tensor], Tensor]] = [torch.linalg.vector_norm] * len(images)
            if references is not None:
                with torch.no_grad():
                    wanted = _Embedding(model)(references)
                targets = [partial(F.cosine_similarity, one, dim=0) for one in wanted]
            with torch.enable_grad(), GradCAM(_Embedding(model), [layer]) as cam:
                found = cam(input_tensor=images.detach().clone(), targets=targets)
        finally:
            for parameter, required, grad in parameters:
                parameter.requires_grad_(required)
                parameter.grad = grad
    return torch.from_numpy(found).float()


class _Embedding(nn.Module):
    """A model that returns its embedding."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model.forward_head(self.model.forward_features(images), pre_logits=True)


def _last_stage(model: Any) -> Any:
    """The module of the last feature maps, or a ValueError if the model names none."""
    try:
        return model.get_submodule(model.feature_info[-1]["module"])
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{type(model).__name__} names no stages: pass a layer") from error
