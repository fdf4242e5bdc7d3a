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
        ("metrics.cmc", None, "Expected `array`, got `null` - at `metrics.cmc`"),
        ("metrics.mAP", None, "Expected `float`, got `null` - at `metrics.mAP`"),
        ("metrics.mAP", "0.5", "Expected `float`, got `str` - at `metrics.mAP`"),
        ("metrics", {"mAP": 0.5}, "missing required field `mAP_trapezoid` - at `metrics`"),
        ("metrics.intervals.mAP", [0.1], "length 2, got 1 - at `metrics.intervals.mAP`"),
        ("dataset", ["tiny"], "Expected `object`, got `array` - at `dataset`"),
        ("dataset", {}, "dataset lacks its name"),
        ("dataset", {"name": 3}, "Expected `str`, got `int` - at `dataset.name`"),
        ("dataset", {"name": "a", "partitions": [3]}, "got `int` - at `dataset.partitions[0]`"),
        ("software", None, "Expected `object`, got `null` - at `software`"),
        ("warnings", None, "Expected `array`, got `null` - at `warnings`"),
        ("protocol.img_size", [256], "length 2, got 1 - at `protocol.img_size`"),
        ("protocol.metric", 3, "Expected `str`, got `int` - at `protocol.metric`"),
        (
            "protocol.metric",
            "x",
            "metric must be one of cosine, euclidean, got 'x' - at `protocol`",
        ),
        ("protocol.rerank", 20, "Expected `object | null`, got `int` - at `protocol.rerank`"),
        ("protocol.rerank", {"k3": 1}, "Reranking has no field k3"),
        ("protocol.blur", 2, "Protocol has no field blur"),
        ("mood", "good", "Report has no field mood"),
        ("per_query.pid", [1, 2], "per_query differ in length: "),
        ("per_query.pid", ["a"] * 40, "Expected `int`, got `str` - at `per_query.pid[0]`"),
        ("per_query.average_precision", ["a"] * 40, "at `per_query.average_precision[0]`"),
        ("per_query", {"pid": [1]}, "required field `average_precision` - at `per_query`"),
    ],
)
def test_fields_that_are_wrong_are_named(
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
