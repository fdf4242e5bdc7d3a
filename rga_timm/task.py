"""The training step of re-identification, on timm's task layer."""

from typing import Any

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from .losses import ReidLoss

# New on top of a pretrained backbone: trained while the backbone is frozen.
_NEW_PARTS = ("rga", "neck")


class ReidTrainable(nn.Module):
    """The part of a step that needs one ``forward`` under DistributedDataParallel.

    The losses of a model with ``forward_neck`` see either side of its neck; any other model gives
    the same pre-logits feature to both.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Turn images (B, 3, H, W) into logits (B, classes) and pooled feature (B, C)."""
        features = self.model.forward_features(x)
        if not hasattr(self.model, "forward_neck"):
            pooled = self.model.forward_head(features, pre_logits=True)
            return self.model.get_classifier()(pooled), pooled
        pooled, embedding = self.model.forward_neck(features)
        dropped = F.dropout(embedding, float(self.model.drop_rate), self.training)
        return self.model.get_classifier()(dropped), pooled


class ReidTask(TrainingTask):
    """A re-identification model, its losses and how they are trained.

    Args:
        model: A timm model with a classifier for the training identities.
        criterion: The loss; the paper's by default.
        freeze_bn: Keep every batch norm in evaluation mode: fixed statistics.
        kwargs: Of timm's `TrainingTask`: device, dtype, verbose.

    Raises:
        ValueError: The model has no classifier.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: ReidLoss | None = None,
        freeze_bn: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not getattr(model, "num_classes", 0):
            raise ValueError(
                "the model has no classifier to train: create it with num_classes=<number of "
                "training identities>, or call model.reset_classifier"
            )
        self.trainable_module: Any = ReidTrainable(model)
        self.criterion = criterion or ReidLoss()
        self.freeze_bn = freeze_bn
        self._ddp_kwargs: dict[str, Any] | None = None

    @property
    def model(self) -> Any:
        """The timm model, without wrappers."""
        return unwrap_model(self.trainable_module).model

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:  # noqa: A002 - timm's
        """Compute one step's loss of (B, 3, H, W) images and (B,) int64 labels.

        Returns:
            ``loss`` to call backward on, ``cross_entropy``, ``triplet`` and ``accuracy`` (of the
            classifier, in [0, 1]) to log, and the logits as ``output`` (B, classes).
        """
        logits, pooled = self.trainable_module(input)
        loss, cross_entropy, triplet = self.criterion(logits, pooled, target)
        accuracy = (logits.detach().argmax(1) == target).float().mean()
        parts = {"cross_entropy": cross_entropy, "triplet": triplet, "accuracy": accuracy}
        return {"loss": loss, "output": logits, **parts}

    def train(self, mode: bool = True) -> "ReidTask":
        """Set training mode, except for the batch norms that keep their statistics."""
        super().train(mode)
        for module in self.model.modules() if mode else ():
            trains = [p.requires_grad for p in module.parameters(recurse=False)]
            if isinstance(module, _BatchNorm) and (self.freeze_bn or (trains and not any(trains))):
                module.eval()
        return self

    def freeze_backbone(self, freeze: bool = True) -> None:
        """Train relation attention, neck and classifier alone; or everything again.

        Make the optimizer before, with all parameters. DistributedDataParallel is set up again,
        because its construction fixes which gradients to expect.
        """
        classifier = {id(p) for p in self.model.get_classifier().parameters()}
        for name, p in self.model.named_parameters():
            is_new = id(p) in classifier or any(part in _NEW_PARTS for part in name.split("."))
            p.requires_grad_(is_new or not freeze)
            if freeze and not is_new:
                p.grad = None
        self.train(self.training)  # the frozen batch norms too
        if self._ddp_kwargs is not None:
            self.prepare_distributed(**self._ddp_kwargs)

    def prepare_distributed(
        self, device_ids: list[int] | None = None, **ddp_kwargs: Any
    ) -> "ReidTask":
        """Average gradients over all ranks."""
        self._ddp_kwargs = {"device_ids": device_ids, **ddp_kwargs}
        module = self.trainable_module
        if isinstance(module, DistributedDataParallel):
            module = module.module
        self.trainable_module = DistributedDataParallel(module, **self._ddp_kwargs)
        return self

    def compile(self, backend: str = "inductor", **kwargs: Any) -> nn.Module:
        """Compile the model's part of the step, before :meth:`prepare_distributed`."""
        self.trainable_module = torch.compile(self.trainable_module, backend=backend, **kwargs)
        return self.trainable_module

    def get_eval_model(
        self, module: nn.Module | None = None, ema: bool = False
    ) -> nn.Module | None:
        """Return the timm model, or that of the EMA: what is evaluated and saved."""
        module = module if module is not None else self.get_trainable_module(ema=ema)
        return None if module is None else unwrap_model(module).model
