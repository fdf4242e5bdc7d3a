"""The training step of re-identification, on timm's task layer."""

from typing import Any, NamedTuple

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from .losses import DistillationLoss, ReidLoss

# New on top of a pretrained backbone: trained while the backbone is frozen.
_NEW_PARTS = ("rga", "neck")


class ReidOutput(NamedTuple):
    """What the losses of a batch of B images are computed from."""

    logits: Tensor  # (B, classes)
    pooled: Tensor  # (B, C), before the neck
    embedding: Tensor  # (B, C), after it
    projected: Tensor | None  # (B, D), the feature in the space of a teacher of this width


class ReidTrainable(nn.Module):
    """The part of a step that needs one ``forward`` under DistributedDataParallel.

    The losses of a model with ``forward_neck`` see either side of its neck; any other model gives
    the same pre-logits feature to both.

    Args:
        model: A timm model.
        teacher_width: Of the features of a teacher, for a linear layer that projects to them; 0
            for none.
        feature: What is projected, ``embedding`` or ``pooled``.
    """

    def __init__(self, model: Any, teacher_width: int = 0, feature: str = "embedding") -> None:
        super().__init__()
        self.model = model
        self.feature = feature
        width = int(model.num_features)
        self.projection = nn.Linear(width, teacher_width, bias=False) if teacher_width else None

    def forward(self, x: Tensor) -> ReidOutput:
        """Compute what the losses need of images (B, 3, H, W)."""
        features = self.model.forward_features(x)
        if hasattr(self.model, "forward_neck"):
            pooled, embedding = self.model.forward_neck(features)
            classified = F.dropout(embedding, float(self.model.drop_rate), self.training)
        else:
            classified = pooled = embedding = self.model.forward_head(features, pre_logits=True)
        logits = self.model.get_classifier()(classified)
        chosen = pooled if self.feature == "pooled" else embedding
        projected = None if self.projection is None else self.projection(chosen)
        return ReidOutput(logits, pooled, embedding, projected)


class ReidTask(TrainingTask):
    """A re-identification model, its losses and how they are trained.

    Args:
        model: A timm model with a classifier for the training identities.
        criterion: The loss; the paper's by default.
        freeze_bn: Keep every batch norm in evaluation mode: fixed statistics.
        distillation: The loss to learn from a teacher by, if there is one.
        teacher_width: Of the teacher's features.
        feature: The one that learns from the teacher, ``embedding`` or ``pooled``.
        kwargs: Of timm's `TrainingTask`: device, dtype, verbose.

    Raises:
        ValueError: The model has no classifier.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: ReidLoss | None = None,
        freeze_bn: bool = False,
        distillation: DistillationLoss | None = None,
        teacher_width: int = 0,
        feature: str = "embedding",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not getattr(model, "num_classes", 0):
            raise ValueError(
                "the model has no classifier to train: create it with num_classes=<number of "
                "training identities>, or call model.reset_classifier"
            )
        projects = distillation is not None and distillation.projection_weight > 0
        width = teacher_width if projects else 0
        self.trainable_module: Any = ReidTrainable(model, width, feature)
        self.criterion = criterion or ReidLoss()
        self.distillation = distillation
        self.feature = feature
        self.freeze_bn = freeze_bn
        self._ddp_kwargs: dict[str, Any] | None = None

    @property
    def model(self) -> Any:
        """The timm model, without wrappers."""
        return unwrap_model(self.trainable_module).model

    def forward(
        self,
        input: Tensor,  # noqa: A002 - timm's
        target: Tensor,
        teacher: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute one step's loss.

        Args:
            input: (B, 3, H, W) images.
            target: (L,) int64 labels of the first L images. From further ones, without an identity,
                only the distillation learns.
            teacher: (B, D) features of a teacher for the images, if the task distills.

        Returns:
            ``loss`` to call backward on; to log ``cross_entropy``, ``triplet``, ``accuracy`` (of
            the classifier, in [0, 1]), and ``similarity`` and ``projection`` of a distillation; and
            the logits of the images with an identity as ``output`` (L, classes).
        """
        out = self.trainable_module(input)
        logits, pooled = out.logits[: len(target)], out.pooled[: len(target)]
        loss, cross_entropy, triplet = self.criterion(logits, pooled, target)
        accuracy = (logits.detach().argmax(1) == target).float().mean()
        parts = {"cross_entropy": cross_entropy, "triplet": triplet, "accuracy": accuracy}
        if self.distillation is not None and teacher is not None:
            feature = out.pooled if self.feature == "pooled" else out.embedding
            distilled = self.distillation(feature, out.projected, teacher)
            loss = loss + distilled.loss
            parts |= {"similarity": distilled.similarity, "projection": distilled.projection}
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

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """Return the projection to the teacher's features, which is not a part of the model."""
        projection = unwrap_model(module or self.get_trainable_module(ema=ema)).projection
        return {} if projection is None else projection.state_dict()

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Restore what `get_task_state` returns."""
        projection = unwrap_model(module or self.get_trainable_module(ema=ema)).projection
        if projection is not None:
            projection.load_state_dict(state or {}, strict=strict)
