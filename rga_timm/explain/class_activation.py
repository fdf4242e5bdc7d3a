"""Which positions make two images alike to a model: gradient-based class activation.

Selvaraju et al., Grad-CAM, ICCV 2017, by the package grad-cam (extra ``cam``), for any timm model.
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
        model: Any timm model whose last feature maps are (B, C, H, W). Its mode and its gradients
            are left as they were.
        images: (B, in_chans, height, width), preprocessed for the model, on its device.
        references: As many images to be similar to; if None, what raises the embedding's length is
            shown, as an image's similarity with itself is at its highest already.
        layer: Whose feature maps; by default the last stage's that timm names.

    Returns:
        (B, height, width) float32 on the CPU, from 0 (nothing, or against it) to 1 (the most).

    Raises:
        ImportError: Without the package grad-cam.
        ValueError: If there is not one reference for each image, or no layer to look at.
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
    """A model that gives its embedding."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.forward_features(images)
        embedding: Tensor = self.model.forward_head(features, pre_logits=True)
        return embedding


def _last_stage(model: Any) -> nn.Module:
    """The module that gives the last feature maps, or a ValueError if the model names none."""
    try:
        name = model.feature_info[-1]["module"]
        stage: nn.Module = model.get_submodule(name)
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{type(model).__name__} names no stages: pass a layer") from error
    return stage
