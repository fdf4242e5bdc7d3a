from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from rga_timm.evaluation import Protocol, Report, average_reports, format_table

PROTOCOL = Protocol(
    img_size=(256, 128), interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)
)


def make_report(name: str, rank_1: float = 0.5, **changes: Any) -> Report:
    fields: dict[str, Any] = {
        "model": "test_resnet",
        "dataset": {"name": name, "fingerprint": f"of {name}"},
        "protocol": PROTOCOL,
        "metrics": {
            "mAP": rank_1 + 0.125,
            "mAP_trapezoid": rank_1,
            "mINP": rank_1 / 2,
            "cmc": [rank_1, 1.0],
            "num_queries": 316,
            "num_valid_queries": 300,
        },
        "software": {"torch": "2.6"},
    }
    return Report(**{**fields, **changes})


def test_scores_are_means_and_queries_are_summed() -> None:
    names = ["viper", "viper:split=1", "viper:split=2", "viper:split=3"]
    reports = [make_report(name, rank_1 / 4) for rank_1, name in enumerate(names)]
    average = average_reports(reports)
    assert average.metrics == {
        "mAP": 0.5,
        "mAP_trapezoid": 0.375,
        "mINP": 0.1875,
        "cmc": [0.375, 1.0],
        "num_queries": 4 * 316,
        "num_valid_queries": 4 * 300,
    }
    assert average.dataset == {
        "name": "viper:split=all",
        "partitions": [{"name": name, "fingerprint": f"of {name}"} for name in names],
    }
    assert (average.model, average.protocol) == ("test_resnet", PROTOCOL)
    assert (average.checkpoint, average.software) == (None, {"torch": "2.6"})
    assert (average.weights, average.warnings, average.per_query) == (None, [], None)


def test_other_options_stay_in_the_name() -> None:
    reports = [make_report(f"a:fold=x,{split}zoom=2") for split in ("", "split=1,", "split=12,")]
    assert average_reports(reports).dataset["name"] == "a:fold=x,split=all,zoom=2"


def test_an_average_is_saved_loaded_and_shown_as_any_report(tmp_path: Path) -> None:
    average = average_reports([make_report("viper", 0.25), make_report("viper:split=1", 0.75)])
    average.save(tmp_path / "average.json")
    assert Report.load(tmp_path / "average.json") == average
    row = format_table([average]).splitlines()[2]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("test_resnet", "viper:split=all", "256x128, embedding, cosine"),
        *("62.5", "50.0", "25.0", "50.0", "-", "-"),
    ]


def test_each_partition_may_have_its_own_weights() -> None:
    reports = [
        make_report(
            f"viper:split={split}",
            checkpoint=checkpoint,
            software={"torch": version},
            weights=checkpoint * 3,
            warnings=["beware"] * split,
        )
        for split, (checkpoint, version) in enumerate([("a", "2.6"), ("b", "2.7"), ("a", "2.6")])
    ]
    average = average_reports(reports)
    assert (average.checkpoint, average.weights) == ("a, b", "aaa, bbb")
    assert average.warnings == ["viper:split=1: beware", *["viper:split=2: beware"] * 2]
    assert average.software == {"torch": "2.6, 2.7"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "test_vit"}, "differ in model: test_resnet and test_vit"),
        (
            {"protocol": dataclasses.replace(PROTOCOL, flip=True)},
            r"differ in protocol: .*flip=False.* and .*flip=True",
        ),
        ({"dataset": {"name": "grid:split=1"}}, "data set: viper:split=all and grid:split=all"),
        ({"dataset": {"name": "viper:a=1"}}, "viper:split=all and viper:a=1,split=all"),
        ({"dataset": {"name": "viper"}}, "two reports are of viper: each partition counts once"),
        (
            {"metrics": {**make_report("viper").metrics, "cmc": [0.5]}},
            "CMC curves' length: 2 and 1",
        ),
    ],
)
def test_reports_that_do_not_belong_together_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        average_reports([make_report("viper"), make_report("viper:split=1", **changes)])


def test_no_reports_have_no_average() -> None:
    with pytest.raises(ValueError, match="no reports"):
        average_reports([])
