"""Reports: scores, and everything that they depend on, so that they can be compared later.

JSON has fractions from 0 to 1, tables have percent, and both say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

import msgspec
import numpy as np
import scipy
import timm
import torch
import torchvision

from rga_timm._version import __version__
from rga_timm.data.text_file import write_text
from rga_timm.evaluation.protocol import Protocol
from rga_timm.evaluation.ranking.evaluate import ReidResult
from rga_timm.evaluation.ranking.expansion import QueryExpansion
from rga_timm.evaluation.ranking.rerank import Reranking
from rga_timm.evaluation.record import ModelRecord
from rga_timm.evaluation.reports.intervals import Interval, bootstrap_intervals
from rga_timm.evaluation.reports.per_query import SCORES, PerQuery, per_query_results, score_columns

AP_CONVENTIONS = {
    "mAP": "step AP: mean precision at the true matches (torchreid, fast-reid, scikit-learn)",
    "mAP_trapezoid": "trapezoid AP (Market-1501's own script, scikit-learn < 0.19)",
}
_UNITS = "fractions from 0 to 1"
_T = TypeVar("_T")
RANKS = (1, 5, 10)  # of the CMC curve, in tables and comparisons


_Ends = tuple[float, float]  # low, high
_RankOne = TypedDict("_RankOne", {"rank-1": _Ends}, total=False)


class _Intervals(TypedDict, total=False):
    level: float
    resamples: int
    seed: int
    identities: int
    mAP: _Ends
    mAP_trapezoid: _Ends
    mINP: _Ends


class Intervals(_Intervals, _RankOne):
    """Confidence intervals over people, and their parameters."""


class _Scores(TypedDict):
    mAP: float
    mAP_trapezoid: float
    mINP: float
    cmc: list[float]  # the first is rank-1
    num_queries: int
    num_valid_queries: int


class Metrics(_Scores, total=False):
    """The scores of a report, as fractions; `verification` has the fields of `Verification`."""

    intervals: Intervals  # if queries of two people or more count
    verification: dict[str, Any]


class _Dataset(TypedDict, total=False):
    name: str
    partitions: list[dict[str, Any]]


def software_versions() -> dict[str, str]:
    """Return the versions of what computes the scores."""
    modules = (timm, torch, torchvision, np, scipy)
    return {"rga_timm": __version__} | {m.__name__: str(m.__version__) for m in modules}


@dataclass(frozen=True)
class Report:
    """One evaluation.

    Attributes:
        model: The model's timm name, as given.
        dataset: `name`, and the rest of `ReidSplits.describe` (counts, fingerprint).
        protocol: How it was tested.
        metrics: The scores.
        checkpoint: Where the weights are from, or None for the model's own.
        software: Versions.
        weights: SHA-256 of `hash_weights`; None if it is not known.
        warnings: What `diagnose` found.
        per_query: The scores of each query; None if they were not kept.
    """

    model: str
    dataset: Mapping[str, Any]
    protocol: Protocol
    metrics: Metrics
    checkpoint: str | None = None
    software: Mapping[str, str] = field(default_factory=software_versions)
    weights: str | None = None
    warnings: list[str] = field(default_factory=list)
    per_query: PerQuery | None = None

    @classmethod
    def of(
        cls,
        result: ReidResult,
        record: ModelRecord,
        dataset: Mapping[str, Any],
        protocol: Protocol,
        *,
        query_pids: np.ndarray | None = None,
        verification: dict[str, Any] | None = None,
        **attributes: Any,
    ) -> Report:
        """Report a result of `evaluate`; `query_pids`, (Q,), add confidence intervals."""
        metrics: Metrics = {
            "mAP": result.mAP,
            "mAP_trapezoid": result.mAP_trapezoid,
            "mINP": result.mINP,
            "cmc": result.cmc.tolist(),
            "num_queries": len(result.average_precision),
            "num_valid_queries": result.num_valid_queries,
        }
        if query_pids is not None and (found := _intervals(result, query_pids, protocol)):
            metrics["intervals"] = found
        if verification:
            metrics["verification"] = verification
        attributes |= {"checkpoint": record.checkpoint, "weights": record.weights}
        return cls(record.name, dict(dataset), protocol, metrics, **attributes)

    @property
    def scores(self) -> dict[str, float]:
        """Return mAP, mAP_trapezoid, mINP, and rank-1, rank-5 and rank-10 of the CMC curve."""
        metrics: Mapping[str, Any] = self.metrics
        scores = {name: float(metrics[name]) for name in SCORES}
        cmc = self.metrics["cmc"]
        return scores | {f"rank-{k}": cmc[k - 1] for k in RANKS if k <= len(cmc)}

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types, with the units and both AP conventions."""
        report = asdict(self)
        if self.per_query is None:
            del report["per_query"]
        return report | {"units": _UNITS, "ap_conventions": AP_CONVENTIONS}

    @classmethod
    def from_dict(cls, report: Mapping[str, Any]) -> Report:
        """Read what `to_dict` of this version or of an earlier one returns.

        Raises:
            ValueError: It is no report, or in other units, or has a field that is wrong, missing or
                unknown to this version. The message names the field.
        """
        if not isinstance(report, Mapping) or not {"protocol", "metrics"} <= report.keys():
            raise ValueError("not a report of an evaluation")
        report = {name: value for name, value in report.items() if name != "ap_conventions"}
        if report.pop("units", None) != _UNITS:
            raise ValueError(f"not a report in {_UNITS}")
        found = _decode(report, cls)
        _decode(report["dataset"], _Dataset, "dataset.")
        if "name" not in report["dataset"]:
            raise ValueError("the report's field dataset lacks its name")
        protocol = report["protocol"]
        nested = protocol.get("rerank"), protocol.get("expansion")
        kinds: tuple[Any, ...] = (cls, Protocol, Reranking, QueryExpansion)
        # An unknown field may change the test, so such scores are not comparable.
        for what, of in zip((report, protocol, *nested), kinds, strict=True):
            if unknown := sorted({*(what or ())} - {f.name for f in fields(of)}):
                raise ValueError(
                    f"not a report that this version reads: {of.__name__} has no field "
                    f"{', '.join(unknown)}"
                )
        columns: Mapping[str, Any] = found.per_query or {}
        if len({len(column) for column in columns.values()}) > 1:
            texts = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
            raise ValueError(f"the columns of the report's per_query differ in length: {texts}")
        return found

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        save_reports([self], path)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read what `save` wrote; errors as `load_reports`, or if the file holds several."""
        reports = load_reports(path)
        if len(reports) > 1:
            raise ValueError(f"{path}: {len(reports)} reports: `load_reports` reads them")
        return reports[0]


def _decode(value: Any, of: type[_T], place: str = "") -> _T:
    """Convert plain types to a dataclass or TypedDict; the error names the field in `place`."""
    try:
        return msgspec.convert(value, of)
    except msgspec.ValidationError as error:
        reason = str(error).replace("$.", place)
        raise ValueError(f"not a report that this version reads: {reason}") from error


def _to_json(report: Report) -> str:
    """Write each value on a line, and each column of `per_query`, which may be long, on one too."""
    values = report.to_dict()
    columns = values.pop("per_query", None)
    text = json.dumps(values, indent=2, allow_nan=False)
    if columns is None:
        return text
    lines = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(column, allow_nan=False)}"
        for name, column in columns.items()
    )
    return f'{text[:-2]},\n  "per_query": {{\n{lines}\n  }}\n}}'


def format_json(reports: Sequence[Report]) -> str:
    """Write as JSON: one report as an object, several as a list of such objects."""
    text = ",\n".join(map(_to_json, reports))
    text = text if len(reports) == 1 else f"[\n{text}\n]"
    return f"{text}\n"


def save_reports(reports: Sequence[Report], path: str | Path) -> None:
    """Write a file of :func:`format_json`."""
    write_text(path, format_json(reports))


def load_reports(path: str | Path) -> list[Report]:
    """Read what `save_reports` wrote.

    Raises:
        ValueError: The file holds something else; the message names the file and the field.
        OSError: There is no such file, or it cannot be read.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        found = found if isinstance(found, list) else [found]
        if not found:
            raise ValueError("the file holds no report")
        return [Report.from_dict(report) for report in found]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _intervals(result: ReidResult, pids: np.ndarray, protocol: Protocol) -> Intervals | None:
    """Compute the metric `intervals`; None if the counted queries are of one person."""
    if len(np.unique(pids[result.first_match_rank > 0])) < 2:
        return None
    # With single gallery shot only the mean of the queries' CMC is kept.
    ranks = () if protocol.single_gallery_shot else (1,)
    columns = score_columns(per_query_results(result, {"pid": pids.tolist()}), ranks)
    found = bootstrap_intervals(np.stack(list(columns.values()), axis=1), pids)
    how = dict(zip(Interval._fields[2:], found[0][2:], strict=True))
    ends = {name: (one.low, one.high) for name, one in zip(columns, found, strict=True)}
    return cast(Intervals, how | ends)
