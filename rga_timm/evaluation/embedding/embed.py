"""Run a model over a loader of images and keep the features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from timm.utils import unwrap_model
from torch import Tensor, nn
from tqdm import tqdm

from rga_timm.evaluation.distributed import gather_rows
from rga_timm.evaluation.embedding.scales import (
    Size,
    check_scales,
    mean_of_scales,
    models_at_scales,
    resized,
)
from rga_timm.evaluation.embedding.tracklets import TrackletMeans

Feature = Literal["embedding", "pooled"]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The features of n images or tracklets, with the persons and cameras.

    Attributes:
        features: (n, D) float32, on the CPU.
        pids: (n,) int64 person ids (or training labels, if the loader gives those).
        camids: (n,) int64 camera ids.
    """

    features: Tensor
    pids: np.ndarray
    camids: np.ndarray

    def __len__(self) -> int:
        return len(self.features)


def embed(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device | str = "cpu",
    feature: Feature = "embedding",
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    amp_dtype: torch.dtype | None = None,
    channels_last: bool = False,
    distributed: bool = False,
    progress: bool = True,
) -> Embeddings:
    """Embed every image of a loader, in the loader's order.

    If the targets contain tracklets, the result has one entry for each: the mean of its images'
    features, not normalised, in the order in which the tracklets first appear.

    Args:
        model: Any timm model, also inside DataParallel, DDP, torch.compile or timm's EMA; the bare
            model runs. It is moved to `device` and runs in eval mode; every module gets its own
            mode back afterwards.
        loader: Yields normalised images (B, 3, H, W), and targets: (B, 2) [person id, camera id],
            or (B, 3) [person id, camera id, tracklet number].
        device: Where the model runs.
        feature: `pooled` is the feature before the BN neck of a model with `forward_neck`, and
            `embedding` the one after it. Any other model has one: the input of its classifier.
        flip: Average the features of each image and its mirror image, not normalised, as the
            paper's own code does.
        scales: Factors by which the images are resized (bilinear, antialiased), to whole numbers of
            pixels or of the model's patches. The features of several scales are L2-normalised,
            averaged and normalised again, as in image retrieval (cirtorch, DELG). A model that
            takes one size only (`set_input_size`) is copied for each other one.
        amp_dtype: Autocast to this type; None for full precision.
        channels_last: Run in that memory format, often faster on GPUs. The model keeps it.
        distributed: Each process of the default group has a loader of its own, and all get the
            images of all loaders, in the order of the processes.
        progress: Show a progress bar.

    Raises:
        TypeError: The model is not a timm model.
        ValueError: An unknown feature, no image, targets of another or a changing shape, images of
            one tracklet with several persons or cameras, features that are not (B, D), scales that
            are not positive or that come to the same size, or one that the model cannot take.
    """
    model = _check_model(model, feature)
    scales = check_scales(scales)
    device = torch.device(device)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model.to(device)
    if channels_last:
        model.to(memory_format=torch.channels_last)

    features, targets, tracklets = [], [], TrackletMeans()
    at_scales: dict[Size, list[tuple[nn.Module, Size]]] = {}
    with _eval_mode(model), torch.inference_mode():
        for images, batch_targets in tqdm(loader, desc="embed", disable=not progress):
            images = images.to(device, memory_format=memory_format, non_blocking=True)
            img_size = (images.shape[-2], images.shape[-1])
            if img_size not in at_scales:
                at_scales[img_size] = models_at_scales(model, img_size, scales)
            with torch.autocast(device.type, amp_dtype) if amp_dtype else nullcontext():
                of_scales = [
                    _forward_flipped(scaled, resized(images, size), feature, flip)
                    for scaled, size in at_scales[img_size]
                ]
            batch = mean_of_scales(of_scales)
            _check_batch(batch, batch_targets)
            if batch_targets.shape[1] == 3:
                tracklets.add(batch.float(), batch_targets)
            else:
                features.append(batch.float().cpu())
                targets.append(batch_targets.cpu())
    return collect(features, targets, tracklets, distributed)


def collect(
    features: list[Tensor], targets: list[Tensor], tracklets: TrackletMeans, distributed: bool
) -> Embeddings:
    """Gather the embeddings of all processes; a ValueError without images, or with both kinds."""
    seen = gather_rows(np.array([[len(features), len(tracklets)]]), distributed).sum(axis=0)
    if seen.all():
        raise ValueError("some images are of tracklets and others are not: test them apart")
    if not seen.any():
        raise ValueError("there are no images")
    if seen[1]:
        means, ids = tracklets.gathered(distributed).result()
        return Embeddings(means, pids=ids[:, 0].copy(), camids=ids[:, 1].copy())
    # A process without images does not know how wide they are.
    width = gather_rows(np.array([f.shape[1] for f in features[:1]], dtype=np.int64), distributed)
    rows = torch.cat([*features, torch.empty(0, int(width[0]))]).numpy()
    ids = torch.cat([*targets, torch.empty(0, 2, dtype=torch.int64)]).numpy()
    rows, ids = gather_rows(rows, distributed), gather_rows(ids, distributed)
    return Embeddings(torch.from_numpy(rows), ids[:, 0].copy(), ids[:, 1].copy())


class Embedder(nn.Module):
    """A model for deployment: from images to features whose dot product is the similarity.

    It computes what `embed` does for one batch, L2-normalised, and can be exported or compiled. It
    shares the model with the caller, and puts it in eval mode. Errors are those of `embed`.
    """

    def __init__(self, model: nn.Module, feature: Feature = "embedding") -> None:
        super().__init__()
        self.model = _check_model(model, feature)
        self.feature = feature
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Compute normalised features, (B, D), of preprocessed images, (B, 3, H, W)."""
        return F.normalize(_forward(self.model, images, self.feature), dim=1)


def _check_model(model: nn.Module, feature: str) -> nn.Module:
    """Return the bare model."""
    if feature not in get_args(Feature):
        raise ValueError(f"feature must be one of {', '.join(get_args(Feature))}, got {feature!r}")
    model = unwrap_model(model)
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        raise TypeError(
            f"{type(model).__name__} lacks forward_features and forward_head: not a timm model"
        )
    return model


def _forward(model: Any, images: Tensor, feature: Feature) -> Tensor:
    """One feature vector an image, (B, D)."""
    features = model.forward_features(images)
    if hasattr(model, "forward_neck"):
        pooled, embedding = model.forward_neck(features)
        return pooled if feature == "pooled" else embedding
    return model.forward_head(features, pre_logits=True)


def _forward_flipped(model: nn.Module, images: Tensor, feature: Feature, flip: bool) -> Tensor:
    features = _forward(model, images, feature)
    if not flip:
        return features
    return (features.float() + _forward(model, images.flip(-1), feature).float()) / 2


def _check_batch(features: Tensor, targets: Tensor) -> None:
    if features.ndim != 2:
        raise ValueError(
            f"the model gives features of shape {tuple(features.shape)}, not (B, D); "
            "create it with its own global_pool"
        )
    B = len(features)
    if targets.shape not in ((B, 2), (B, 3)):
        raise ValueError(
            f"targets must be ({B}, 2) [person id, camera id], or ({B}, 3) with the tracklet, got "
            f"shape {tuple(targets.shape)}"
        )


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Set eval mode; afterwards restore each module's mode, as some may be frozen in training."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
