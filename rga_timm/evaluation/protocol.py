"""How a model is tested: everything about a test that can change its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rga_timm.data import eval_transform
from rga_timm.evaluation.embedding.embed import Feature
from rga_timm.evaluation.ranking.ranking import Ranking


@dataclass(frozen=True)
class Protocol(Ranking):
    """How images become features, and how these are compared.

    Attributes:
        img_size: Height and width of the input, pixels.
        interpolation: How images are resized to it.
        mean: Of each channel, subtracted from pixels in 0 ... 1.
        std: Of each channel, by which they are then divided.
        feature: `embedding` or `pooled`.
        flip: Whether features are averaged with those of the mirror image.
        scales: Factors by which images are resized, as `embed` says.
        multi_query: Whether all query images of a person under a camera are one query.
        amp_dtype: The autocast type, e.g. `float16`; None for full precision.
        cameras: Whether camera ids are known. If not, only the query itself is left out of its
            gallery, as each image has a camera id of its own.
    """

    img_size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    feature: Feature = "embedding"
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    multi_query: bool = False
    amp_dtype: str | None = None
    cameras: bool = True

    @classmethod
    def of_data_config(cls, config: Mapping[str, Any], **options: Any) -> Protocol:
        """Preprocess as the config of `timm.data.resolve_data_config` says."""
        return cls(
            img_size=tuple(config["input_size"][1:]),
            interpolation=config["interpolation"],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            **options,
        )

    def transform(self) -> Callable[[Any], Any]:
        """Return the preprocessing, from an image to a tensor."""
        return eval_transform(self.img_size, self.mean, self.std, self.interpolation)

    def summary(self) -> str:
        """Describe it, e.g. `256x128, embedding, cosine, flip, re-ranked (20, 6, 0.3)`."""
        height, width = self.img_size
        scales = " ".join(f"{scale:g}" for scale in self.scales)
        expansion, rerank = self.expansion, self.rerank
        parts = [
            f"{height}x{width}",
            self.feature,
            self.metric,
            self.flip and "flip",
            self.scales != (1.0,) and f"scales {scales}",
            self.multi_query and "multi-query",
            expansion and f"queries expanded ({expansion.k}, {expansion.alpha:g})",
            rerank and f"re-ranked ({rerank.k1}, {rerank.k2}, {rerank.lambda_value})",
            self.amp_dtype,
            self.single_gallery_shot and "single gallery shot",
            not self.cameras and "no cameras",
        ]
        return ", ".join(part for part in parts if part)
