"""Whether what was read from JSON has the types of a report's fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rga_timm.evaluation.reports.per_query import FIRST_MATCH, SCORES

_Test = Callable[[Any], bool]


def check_fields(report: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the first field of a wrong type.

    Args:
        report: as `Report.to_dict` gives it. Fields that older reports do not have may be missing.
    """
    for name, test, what in (
        ("model", _is_text, "a text"),
        ("checkpoint", _or_none(_is_text), "a text or null"),
        ("weights", _or_none(_is_text), "a text or null"),
        ("dataset", _is_object, "an object"),
        ("protocol", _is_object, "an object"),
        ("metrics", _is_object, "an object"),
        ("software", _is_object, "an object"),
        ("warnings", _list_of(_is_text), "a list of texts"),
        ("per_query", _or_none(_is_object), "an object or null"),
    ):
        _check(report, name, test, what)
    _check_dataset(report.get("dataset", {}))
    _check_protocol(report.get("protocol", {}))
    _check_metrics(report.get("metrics", {}))
    if report.get("per_query") is not None:
        _check_per_query(report["per_query"])


def _check_dataset(dataset: Mapping[str, Any]) -> None:
    if "name" not in dataset:
        raise ValueError("the report's field dataset lacks its name")
    _check(dataset, "name", _is_text, "a text", of="dataset")
    _check(dataset, "partitions", _list_of(_is_object), "a list of objects", of="dataset")


def _check_protocol(protocol: Mapping[str, Any]) -> None:
    for name in ("img_size", "mean", "std", "scales"):
        _check(protocol, name, _list_of(_is_number), "a list of numbers", of="protocol")
    if len(protocol.get("img_size", (0, 0))) != 2:
        raise ValueError("the report's field protocol.img_size must be height and width")
    for name in ("interpolation", "feature", "metric"):
        _check(protocol, name, _is_text, "a text", of="protocol")
    _check(protocol, "amp_dtype", _or_none(_is_text), "a text or null", of="protocol")
    for name in ("flip", "multi_query", "single_gallery_shot", "cameras"):
        _check(protocol, name, _is_bool, "true or false", of="protocol")
    for name in ("rerank", "expansion"):
        _check(protocol, name, _or_none(_is_object), "an object or null", of="protocol")


def _check_metrics(metrics: Mapping[str, Any]) -> None:
    for name in ("mAP", "mAP_trapezoid", "mINP", "num_queries", "num_valid_queries"):
        _check(metrics, name, _is_number, "a number", of="metrics")
    _check(metrics, "cmc", _list_of(_is_number), "a list of numbers", of="metrics")
    _check(metrics, "verification", _is_object, "an object", of="metrics")
    _check(metrics, "intervals", _is_object, "an object", of="metrics")
    intervals = metrics.get("intervals", {})
    for name in intervals:
        if name in (*SCORES, "rank-1"):
            _check(intervals, name, _is_pair, "two numbers", of="metrics.intervals")
        else:
            _check(intervals, name, _is_number, "a number", of="metrics.intervals")


def _check_per_query(columns: Mapping[str, Any]) -> None:
    scores = (*SCORES.values(), FIRST_MATCH)
    if missing := [name for name in ("pid", *scores) if name not in columns]:
        raise ValueError(f"the report's field per_query lacks {', '.join(missing)}")
    for name in columns:
        if name in scores:
            test, what = _list_of(_or_none(_is_number)), "a list of numbers and nulls"
        elif name in ("pid", "camid", "tracklet"):
            test, what = _list_of(_is_integer), "a list of integers"
        else:
            test, what = _list_of(_is_text), "a list of texts"
        _check(columns, name, test, what, of="per_query")
    lengths = {name: len(column) for name, column in columns.items()}
    if len({*lengths.values()}) > 1:
        raise ValueError(
            "the columns of the report's field per_query differ in length: "
            + ", ".join(f"{name} {length}" for name, length in lengths.items())
        )


def _check(fields: Mapping[str, Any], name: str, test: _Test, what: str, *, of: str = "") -> None:
    if name in fields and not test(fields[name]):
        place = f"{of}.{name}" if of else name
        raise ValueError(f"the report's field {place} must be {what}, not {_kind(fields[name])}")


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_pair(value: Any) -> bool:
    return _list_of(_is_number)(value) and len(value) == 2


def _or_none(test: _Test) -> _Test:
    return lambda value: value is None or test(value)


def _list_of(test: _Test) -> _Test:
    return lambda value: isinstance(value, (list, tuple)) and all(map(test, value))
