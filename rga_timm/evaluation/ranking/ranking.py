"""How queries and gallery are compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rga_timm.evaluation.ranking.distance import METRICS
from rga_timm.evaluation.ranking.expansion import QueryExpansion
from rga_timm.evaluation.ranking.rerank import Reranking

Parameters = TypeVar("Parameters", QueryExpansion, Reranking)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How queries and gallery are compared.

    Attributes:
        metric: `cosine` or `euclidean`.
        expansion: Query expansion, for the cosine only; None for none.
        rerank: k-reciprocal re-ranking; None for none.
        single_gallery_shot: Whether the CMC is of galleries with one image of each person.

    Raises:
        ValueError: The metric is unknown, or cannot be combined with query expansion.
    """

    metric: str = "cosine"
    expansion: QueryExpansion | None = None
    rerank: Reranking | None = None
    single_gallery_shot: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {self.metric!r}")
        if self.expansion and self.metric != "cosine":
            raise ValueError(f"queries are expanded by the cosine; the metric is {self.metric}")


def as_ranking(
    metric: str,
    rerank: Reranking | Mapping[str, Any] | None,
    expand: QueryExpansion | Mapping[str, Any] | None,
    single_gallery_shot: bool = False,
) -> Ranking:
    """Check the keywords of `evaluate` and `verify`."""
    return Ranking(
        metric=metric,
        expansion=_as_parameters("expand", expand, QueryExpansion),
        rerank=_as_parameters("rerank", rerank, Reranking),
        single_gallery_shot=single_gallery_shot,
    )


def _as_parameters(
    name: str, value: Parameters | Mapping[str, Any] | None, kind: type[Parameters]
) -> Parameters | None:
    if value is None or isinstance(value, kind):
        return value
    if isinstance(value, Mapping):
        return kind(**value)
    got = type(value).__name__
    raise TypeError(f"{name} must be None, a {kind.__name__} or a dict, got {got}")
