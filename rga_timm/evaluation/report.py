"""Results that can be compared later: the numbers, and everything that decides what they mean.

Two mAPs of one model differ by points with the AP convention, the flip, the distance, the input
size or the split. A report carries all of these beside its scores. Units never mix: JSON holds
fractions from 0 to 1, tables show percent, and both say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision

from rga_timm._version import __version__
from rga_timm.evaluation.embed import Feature
from rga_timm.evaluation.ranking import ReidResult
from rga_timm.evaluation.rerank import Reranking

AP_CONVENTIONS = {
    "mAP": "step AP: mean precision at the true matches (torchreid, fast-reid, scikit-learn)",
    "mAP_trapezoid": "trapezoid AP (Market-1501's own script, scikit-learn < 0.19)",
}
_UNITS = "fractions from 0 to 1"
_RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Protocol:
    """How a model was tested.

    Attributes:
        img_size: height and width of the input, pixels.
        interpolation: how images were resized to it.
        mean: subtracted from the pixels, in 0 ... 1, a channel.
        std: divided by, a channel.
        feature: `embedding` or `pooled`.
        metric: `cosine` or `euclidean`.
        flip: whether features are averaged with those of the mirror image.
        scales: factors by which images were resized, as `embed` says.
        rerank: parameters of k-reciprocal re-ranking; None for none.
        amp_dtype: the autocast type, e.g. `float16`; None for full precision.
        single_gallery_shot: whether the CMC is of galleries with one image of each person.
        cameras: whether camera ids were known. Where they are not, no image is left out of a
            query's gallery but the query itself, as each image has a camera id of its own.
    """

    img_size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    feature: Feature = "embedding"
    metric: str = "cosine"
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    rerank: Reranking | None = None
    amp_dtype: str | None = None
    single_gallery_shot: bool = False
    cameras: bool = True

    def summary(self) -> str:
        """On a line, e.g. `256x128, embedding, cosine, flip, re-ranked (20, 6, 0.3)`."""
        parts = [f"{self.img_size[0]}x{self.img_size[1]}", self.feature, self.metric]
        if self.flip:
            parts.append("flip")
        if self.scales != (1.0,):
            parts.append("scales " + " ".join(f"{scale:g}" for scale in self.scales))
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


@dataclass(frozen=True)
class Report:
    """One evaluation.

    Attributes:
        model: the model's timm name, as given.
        checkpoint: where the weights are from, or None for the model's own.
        dataset: `name`, and what the data set says of itself (counts, fingerprint).
        protocol: how it was tested.
        metrics: mAP, mAP_trapezoid, mINP, cmc (list; the first is rank-1), num_queries,
            num_valid_queries. Fractions.
        software: versions.
    """

    model: str
    dataset: Mapping[str, Any]
    protocol: Protocol
    metrics: Mapping[str, Any]
    checkpoint: str | None = None
    software: Mapping[str, str] = field(default_factory=lambda: software_versions())

    @classmethod
    def of(
        cls,
        result: ReidResult,
        *,
        model: str,
        dataset: Mapping[str, Any],
        protocol: Protocol,
        checkpoint: str | None = None,
    ) -> Report:
        """The report of a result of `evaluate`, with the versions of what runs now."""
        metrics = {
            "mAP": result.mAP,
            "mAP_trapezoid": result.mAP_trapezoid,
            "mINP": result.mINP,
            "cmc": result.cmc.tolist(),
            "num_queries": len(result.average_precision),
            "num_valid_queries": result.num_valid_queries,
        }
        return cls(model, dict(dataset), protocol, metrics, checkpoint)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, with the units and both AP conventions named."""
        report = asdict(self)
        report["units"] = _UNITS
        report["ap_conventions"] = AP_CONVENTIONS
        return report

    @classmethod
    def from_dict(cls, report: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`, also of reports from before there were the newest fields.

        Raises:
            ValueError: a report in other units.
        """
        report = dict(report)
        if report.pop("units", None) != _UNITS:
            raise ValueError(f"not a report in {_UNITS}")
        report.pop("ap_conventions", None)
        protocol = dict(report.pop("protocol"))
        for name in ("img_size", "mean", "std", "scales"):
            if name in protocol:
                protocol[name] = tuple(protocol[name])
        if protocol["rerank"] is not None:
            protocol["rerank"] = Reranking(**protocol["rerank"])
        return cls(protocol=Protocol(**protocol), **report)

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read what `save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


def save_reports(reports: Sequence[Report], path: str | Path) -> None:
    """Write as JSON: one report as `Report.save` does, several as a list of such objects."""
    if len(reports) == 1:
        reports[0].save(path)
        return
    text = json.dumps([report.to_dict() for report in reports], indent=2, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def load_reports(path: str | Path) -> list[Report]:
    """Read what `save_reports` wrote."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    return [Report.from_dict(report) for report in (found if isinstance(found, list) else [found])]


def format_table(reports: Sequence[Report]) -> str:
    """A Markdown table, a row a report, readable as plain text. Scores are percent.

    Args:
        reports: at least one.

    Returns:
        The table, and a line that says what its columns are.
    """
    scores = ["mAP", "mAP (trapezoid)", "mINP", *(f"rank-{k}" for k in _RANKS)]
    rows = [["model", "data set", "test", *scores], *map(_cells, reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = 3  # columns of text, to the left; scores to the right
    rule = ["-" * w if i < text else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = []
    for row in [rows[0], rule, *rows[1:]]:
        cells = [f"{c:<{w}}" for c, w in zip(row[:text], widths[:text], strict=True)]
        cells += [f"{c:>{w}}" for c, w in zip(row[text:], widths[text:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    step, trapezoid = AP_CONVENTIONS["mAP"], AP_CONVENTIONS["mAP_trapezoid"]
    note = f"All scores in percent. mAP: {step}; mAP (trapezoid): {trapezoid}."
    return "\n".join([*lines, "", note])


def _cells(report: Report) -> list[str]:
    metrics, cmc = report.metrics, report.metrics["cmc"]
    scores = [metrics["mAP"], metrics["mAP_trapezoid"], metrics["mINP"]]
    scores += [cmc[k - 1] if k <= len(cmc) else None for k in _RANKS]
    percents = ["-" if score is None else f"{100 * score:.1f}" for score in scores]
    return [report.model, str(report.dataset["name"]), report.protocol.summary(), *percents]


def software_versions() -> dict[str, str]:
    """Versions of what computes the scores."""
    modules = {"timm": timm, "torch": torch, "torchvision": torchvision, "numpy": np}
    return {"rga_timm": __version__} | {name: str(m.__version__) for name, m in modules.items()}
