"""Weights as if trained: nothing at its initial value, and outputs that depend on the image."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def scramble(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random parameters, which do not depend on how the model initialises itself."""
    generator = torch.Generator().manual_seed(seed)
    for name, t in model.state_dict().items():
        if t.is_floating_point():
            noise = torch.rand(t.shape, generator=generator)
            if t.ndim > 1:
                noise = (2 * noise - 1) * (6 / max(1, t.shape[1:].numel())) ** 0.5
            elif name.endswith(("running_mean", "bias")):
                noise = 0.4 * noise - 0.2
            else:
                noise = 0.5 + noise
            t.copy_(noise)
    return model


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> nn.Module:
    """Batch norm statistics of these images: without, deep networks in eval mode go constant."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 1.0
    model.train()(images)
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    return model.eval()
