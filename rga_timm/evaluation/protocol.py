"""How a model is tested: everything about a test that can change its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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
        mean: Subtracted from the pixels, in 0 ... 1, a channel.
        std: Divided by, a channel.
        feature: `embedding` or `pooled`.
        flip: Whether features are averaged with those of the mirror image.
        scales: Factors by which images are resized, as `embed` says.
        multi_query: Whether all query images of a person under a camera are one query.
        amp_dtype: The autocast type, e.g. `float16`; None for full precision.
        cameras: Whether camera ids are known. Where they are not, no image is left out of a
            query's gallery but the query itself, as each image has a camera id of its own.
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
        """Test a model with images that are prepared as its own config says.

        Args:
            config: As `timm.data.resolve_data_config` gives it.
            options: The attributes that do not follow from it.
        """
        return cls(
            img_size=tuple(config["input_size"][1:]),
            interpolation=config["interpolation"],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            **options,
        )

    def transform(self) -> Callable[[Any], Any]:
        """The preprocessing, from an image to a tensor."""
        return eval_transform(self.img_size, self.mean, self.std, self.interpolation)

    def summary(self) -> str:
        """On a line, e.g. `256x128, embedding, cosine, flip, re-ranked (20, 6, 0.3)`."""
        parts = [f"{self.img_size[0]}x{self.img_size[1]}", self.feature, self.metric]
        if self.flip:
            parts.append("flip")
        if self.scales != (1.0,):
            parts.append("scales " + " ".join(f"{scale:g}" for scale in self.scales))
        if self.multi_query:
            parts.append("multi-query")
        if self.expansion:
            parts.append(f"queries expanded ({self.expansion.k}, {self.expansion.alpha:g})")
        if self.rerank:
            k1, k2, lambda_value = asdict(self.rerank).values()
            parts.append(f"re-ranked ({k1}, {k2}, {lambda_value})")
        if self.amp_dtype:
            parts.append(self.amp_dtype)
        if self.single_gallery_shot:
            parts.append("single gallery shot")
        if not self.cameras:
            parts.append("no cameras")
        return ", ".join(parts)
