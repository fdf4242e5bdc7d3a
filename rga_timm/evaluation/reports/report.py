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
import scipy
import timm
import torch
import torchvision

from rga_timm._version import __version__
from rga_timm.evaluation.embedding.embed import Feature
from rga_timm.evaluation.ranking.evaluate import ReidResult
from rga_timm.evaluation.ranking.expansion import QueryExpansion
from rga_timm.evaluation.ranking.rerank import Reranking
from rga_timm.evaluation.reports.check_fields import check_fields
from rga_timm.evaluation.reports.intervals import bootstrap_intervals
from rga_timm.evaluation.reports.markdown import markdown_table
from rga_timm.evaluation.reports.per_query import per_query_results, score_columns

AP_CONVENTIONS = {
    "mAP": "step AP: mean precision at the true matches (torchreid, fast-reid, scikit-learn)",
    "mAP_trapezoid": "trapezoid AP (Market-1501's own script, scikit-learn < 0.19)",
}
_UNITS = "fractions from 0 to 1"
_RANKS = (1, 5, 10)
_SCORES = {"mAP", "mAP_trapezoid", "mINP", "cmc", "num_queries", "num_valid_queries"}


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
        multi_query: whether all query images of a person under a camera were one query.
        expansion: parameters of query expansion; None for none.
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
    multi_query: bool = False
    expansion: QueryExpansion | None = None
    rerank: Reranking | None = None
    amp_dtype: str | None = None
    single_gallery_shot: bool = False
    cameras: bool = True

    @classmethod
    def of_data_config(cls, config: Mapping[str, Any], **options: Any) -> Protocol:
        """The protocol of a model whose images are prepared as its own config says.

        Args:
            config: of `timm.data.resolve_data_config`.
            options: the attributes that do not follow from it.
        """
        return cls(
            img_size=tuple(config["input_size"][1:]),
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
            **options,
        )

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


@dataclass(frozen=True)
class Report:
    """One evaluation.

    Attributes:
        model: the model's timm name, as given.
        checkpoint: where the weights are from, or None for the model's own.
        dataset: `name`, and what the data set says of itself (counts, fingerprint).
        protocol: how it was tested.
        metrics: mAP, mAP_trapezoid, mINP, cmc (list; the first is rank-1), num_queries,
            num_valid_queries. Fractions. Where there are queries of two people or more, also
            `intervals`: of mAP, mAP_trapezoid, mINP and rank-1 the ends [low, high] of the
            confidence interval over people, and its level, resamples, seed and identities; and
            where it was asked for `verification`, as `report_features` says.
        software: versions.
        weights: SHA-256 of the model's weights, of `hash_weights`; None where it is not known.
        warnings: what `diagnose` found.
        per_query: how each query fared: columns of `per_query_results`; None where it was not kept.
    """

    model: str
    dataset: Mapping[str, Any]
    protocol: Protocol
    metrics: Mapping[str, Any]
    checkpoint: str | None = None
    software: Mapping[str, str] = field(default_factory=lambda: software_versions())
    weights: str | None = None
    warnings: Sequence[str] = field(default_factory=list)
    per_query: Mapping[str, Sequence[Any]] | None = None

    @classmethod
    def of(
        cls,
        result: ReidResult,
        *,
        model: str,
        dataset: Mapping[str, Any],
        protocol: Protocol,
        checkpoint: str | None = None,
        weights: str | None = None,
        query_pids: Sequence[int] | np.ndarray | None = None,
        per_query: Mapping[str, Sequence[Any]] | None = None,
        warnings: Sequence[str] = (),
        metrics: Mapping[str, Any] | None = None,
        software: Mapping[str, str] | None = None,
    ) -> Report:
        """The report of a result of `evaluate`, with the versions of what runs now.

        Args:
            result: the scores.
            model: as the report's attribute, and so are the others.
            dataset: the same.
            protocol: the same.
            checkpoint: the same.
            weights: the same.
            query_pids: (Q,) whose the queries are, for confidence intervals; without them those of
                `per_query`, and without either there are no intervals.
            per_query: as the attribute.
            warnings: as the attribute.
            metrics: further ones than those of the result.
            software: further versions than those of what runs now.
        """
        all_metrics: dict[str, Any] = {
            "mAP": result.mAP,
            "mAP_trapezoid": result.mAP_trapezoid,
            "mINP": result.mINP,
            "cmc": result.cmc.tolist(),
            "num_queries": len(result.average_precision),
            "num_valid_queries": result.num_valid_queries,
        }
        if query_pids is None and per_query is not None:
            query_pids = per_query["pid"]
        if query_pids is not None:
            all_metrics |= _intervals(result, np.asarray(query_pids), protocol)
        return cls(
            model,
            dict(dataset),
            protocol,
            all_metrics | dict(metrics or {}),
            checkpoint,
            software_versions() | dict(software or {}),
            weights=weights,
            warnings=list(warnings),
            per_query=per_query,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, with the units and both AP conventions named."""
        report = asdict(self)
        if self.per_query is None:
            del report["per_query"]
        report["units"] = _UNITS
        report["ap_conventions"] = AP_CONVENTIONS
        return report

    @classmethod
    def from_dict(cls, report: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`, also of reports from before there were the newest fields.

        Raises:
            ValueError: no report, one in other units, or a field of a wrong type, which it names.
        """
        if not isinstance(report, Mapping) or not {"protocol", "metrics"} <= report.keys():
            raise ValueError("not a report of an evaluation")
        report = dict(report)
        if report.pop("units", None) != _UNITS:
            raise ValueError(f"not a report in {_UNITS}")
        report.pop("ap_conventions", None)
        check_fields(report)
        if missing := sorted(_SCORES - set(report["metrics"])):
            raise ValueError(f"a report without its {', '.join(missing)}")
        try:
            protocol = dict(report.pop("protocol"))
            for name in ("img_size", "mean", "std", "scales"):
                if name in protocol:
                    protocol[name] = tuple(protocol[name])
            for name, of in (("rerank", Reranking), ("expansion", QueryExpansion)):
                if protocol.get(name) is not None:
                    protocol[name] = of(**protocol[name])
            return cls(protocol=Protocol(**protocol), **report)
        except (KeyError, TypeError) as error:  # a field that is missing, or one too many
            raise ValueError(f"not a report that this version reads: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(_to_json(self) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read what `save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


def _to_json(report: Report) -> str:
    """A line a value, and a line a column of the queries' results, of which there are thousands."""
    fields = report.to_dict()
    columns = fields.pop("per_query", None)
    text = json.dumps(fields, indent=2, allow_nan=False)
    if columns is None:
        return text
    lines = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(column, allow_nan=False)}"
        for name, column in columns.items()
    )
    return f'{text[:-2]},\n  "per_query": {{\n{lines}\n  }}\n}}'


def save_reports(reports: Sequence[Report], path: str | Path) -> None:
    """Write as JSON: one report as `Report.save` does, several as a list of such objects."""
    if len(reports) == 1:
        reports[0].save(path)
        return
    text = ",\n".join(map(_to_json, reports))
    Path(path).write_text(f"[\n{text}\n]\n", encoding="utf-8")


def load_reports(path: str | Path) -> list[Report]:
    """Read what `save_reports` wrote.

    Raises:
        ValueError: the file holds something else; it names the file.
        OSError: there is no such file, or it cannot be read.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        found = found if isinstance(found, list) else [found]
        if not found:
            raise ValueError("the file holds no report")
        return [Report.from_dict(report) for report in found]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def format_table(reports: Sequence[Report]) -> str:
    """A Markdown table, a row a report, readable as plain text. Scores are percent.

    Args:
        reports: at least one.

    Returns:
        The table, and a line that says what its columns are.
    """
    scores = ["mAP", "mAP (trapezoid)", "mINP", *(f"rank-{k}" for k in _RANKS)]
    rows = [["model", "data set", "test", *scores], *map(_cells, reports)]
    step, trapezoid = AP_CONVENTIONS["mAP"], AP_CONVENTIONS["mAP_trapezoid"]
    note = f"All scores in percent. mAP: {step}; mAP (trapezoid): {trapezoid}."
    return f"{markdown_table(rows, text=3)}\n\n{note}"


def format_intervals(reports: Sequence[Report]) -> str:
    """A line for each report that has confidence intervals, in percent; empty without any."""
    lines = []
    for report in reports:
        if intervals := report.metrics.get("intervals"):
            texts = [
                f"{score} {100 * low:.1f} to {100 * high:.1f}"
                for score in ("mAP", "rank-1")
                for low, high in [intervals.get(score, (None, None))]
                if low is not None
            ]
            lines.append(
                f"{report.dataset['name']}: {100 * intervals['level']:g} % interval over its "
                f"{intervals['identities']} people: {', '.join(texts)}"
            )
    return "\n".join(lines)


def format_verification(reports: Sequence[Report]) -> str:
    """A line for each threshold that was asked for; empty without any."""
    return "\n".join(
        f"{report.dataset['name']}: {point['tpr']:.2%} of the pairs of one person are nearer than "
        f"{point['threshold']:.4f}, and {point['fpr']:.3g} of those of two people "
        f"(at most {point['target_fpr']:g} asked for)"
        for report in reports
        for point in report.metrics.get("verification", {}).get("points", ())
    )


def _intervals(result: ReidResult, pids: np.ndarray, protocol: Protocol) -> dict[str, Any]:
    """The metric `intervals`, in a dict; an empty dict where there cannot be any."""
    counted = result.first_match_rank > 0
    if len(np.unique(pids[counted])) < 2:
        return {}
    # With single gallery shot a query's CMC is an expectation, and the result has only their mean.
    ranks = () if protocol.single_gallery_shot else (1,)
    columns = score_columns(per_query_results(result, {"pid": pids.tolist()}), ranks)
    found = bootstrap_intervals(np.stack(list(columns.values()), axis=1), pids)
    level, resamples, seed, identities = found[0][2:]
    how = {"level": level, "resamples": resamples, "seed": seed, "identities": identities}
    ends = {name: [one.low, one.high] for name, one in zip(columns, found, strict=True)}
    return {"intervals": {**how, **ends}}


def _cells(report: Report) -> list[str]:
    metrics, cmc = report.metrics, report.metrics["cmc"]
    scores = [metrics["mAP"], metrics["mAP_trapezoid"], metrics["mINP"]]
    scores += [cmc[k - 1] if k <= len(cmc) else None for k in _RANKS]
    percents = ["-" if score is None else f"{100 * score:.1f}" for score in scores]
    return [report.model, str(report.dataset["name"]), report.protocol.summary(), *percents]


def software_versions() -> dict[str, str]:
    """Versions of what computes the scores."""
    modules = {
        "timm": timm,
        "torch": torch,
        "torchvision": torchvision,
        "numpy": np,
        "scipy": scipy,
    }
    return {"rga_timm": __version__} | {name: str(m.__version__) for name, m in modules.items()}
