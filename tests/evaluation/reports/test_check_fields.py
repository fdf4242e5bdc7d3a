from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_reports import random_report

from rga_timm.evaluation import load_reports


def as_json(**options: Any) -> dict[str, Any]:
    return json.loads(json.dumps(random_report(1, **options).to_dict()))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("metrics.cmc", None, "metrics.cmc must be a list of numbers, not null"),
        ("metrics.mAP", None, "metrics.mAP must be a number, not null"),
        ("metrics.intervals.mAP", [0.1], "metrics.intervals.mAP must be two numbers, not list"),
        ("dataset", ["tiny"], "dataset must be an object, not list"),
        ("dataset", {}, "dataset lacks its name"),
        ("software", None, "software must be an object, not null"),
        ("warnings", None, "warnings must be a list of texts, not null"),
        ("protocol.img_size", [256], "protocol.img_size must be height and width"),
        ("protocol.metric", 3, "protocol.metric must be a text, not int"),
        ("protocol.rerank", 20, "protocol.rerank must be an object or null, not int"),
        ("per_query.pid", [1, 2], "per_query differ in length: path 40, pid 2, camid 40"),
        ("per_query.pid", ["a"] * 40, "per_query.pid must be a list of integers"),
        ("per_query.average_precision", ["a"] * 40, "must be a list of numbers and nulls"),
        ("per_query", {"pid": [1]}, "per_query lacks average_precision, "),
    ],
)
def test_fields_of_a_wrong_type_are_named(
    place: str, value: Any, message: str, tmp_path: Path
) -> None:
    report = as_json()
    *outer, name = place.split(".")
    fields = report
    for one in outer:
        fields = fields[one]
    fields[name] = value
    (tmp_path / "a.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match=r"a\.json: ") as found:
        load_reports(tmp_path / "a.json")
    assert message in str(found.value)


def test_a_missing_column_of_the_queries_is_named(tmp_path: Path) -> None:
    report = as_json()
    del report["per_query"]["first_match_rank"]
    (tmp_path / "a.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match="per_query lacks first_match_rank"):
        load_reports(tmp_path / "a.json")
