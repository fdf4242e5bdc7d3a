from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import scipy
import timm
import torch
from small_reports import PIDS, random_report
from timm.data import resolve_data_config

import rga_timm  # noqa: F401 - registers the models
from rga_timm.evaluation import (
    ModelRecord,
    Protocol,
    Report,
    Reranking,
    bootstrap_interval,
    evaluate,
    format_intervals,
    format_table,
    load_reports,
    save_reports,
)

PROTOCOL = Protocol(
    img_size=(256, 128), interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)
)


def make_report(protocol: Protocol = PROTOCOL, max_rank: int = 10) -> Report:
    # Nearest first: wrong, right. AP 1/2, trapezoid AP 1/4, mINP 1/2, rank-1 0, rank-5 1.
    query, gallery = np.zeros((2, 1)), np.array([[1.0], [2.0]])
    result = evaluate(
        query, [1, 9], [1, 1], gallery, [2, 1], [2, 2], metric="euclidean", max_rank=max_rank
    )
    dataset = {"name": "tiny", "fingerprint": "abc", "query": {"images": 2}}
    return Report.of(result, ModelRecord("test_resnet"), dataset, protocol)


def test_a_report_says_what_was_tested_and_how() -> None:
    report = make_report().to_dict()
    assert report["dataset"] == {"name": "tiny", "fingerprint": "abc", "query": {"images": 2}}
    assert report["protocol"]["img_size"] == (256, 128)
    assert report["protocol"]["rerank"] is None
    assert report["software"]["timm"] == timm.__version__
    assert report["software"]["torch"] == torch.__version__
    assert report["software"]["scipy"] == scipy.__version__
    assert "fractions" in report["units"]
    assert "step AP" in report["ap_conventions"]["mAP"]
    assert "Market-1501" in report["ap_conventions"]["mAP_trapezoid"]


def test_metrics_are_fractions() -> None:
    metrics = make_report().metrics
    assert metrics["mAP"] == 0.5
    assert metrics["mAP_trapezoid"] == 0.25
    assert metrics["mINP"] == 0.5
    assert metrics["cmc"] == [0.0] + [1.0] * 9
    assert (metrics["num_queries"], metrics["num_valid_queries"]) == (2, 1)


@pytest.mark.parametrize("rerank", [None, Reranking(k1=5)])
def test_what_is_saved_is_loaded(tmp_path: Path, rerank: Reranking | None) -> None:
    report = make_report(dataclasses.replace(PROTOCOL, rerank=rerank, flip=True))
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report


def test_kinds_of_tests_are_told_where_they_are_unusual(tmp_path: Path) -> None:
    protocol = dataclasses.replace(PROTOCOL, single_gallery_shot=True, cameras=False)
    assert protocol.summary() == "256x128, embedding, cosine, single gallery shot, no cameras"
    assert PROTOCOL.summary() == "256x128, embedding, cosine"
    make_report(protocol).save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())["protocol"]
    assert (saved["single_gallery_shot"], saved["cameras"]) == (True, False)
    assert Report.load(tmp_path / "report.json").protocol == protocol


def test_reports_from_before_there_were_other_kinds_of_tests_are_loaded(tmp_path: Path) -> None:
    report = make_report().to_dict()
    for name in ("single_gallery_shot", "cameras"):
        del report["protocol"][name]
    (tmp_path / "report.json").write_text(json.dumps(report))
    loaded = Report.load(tmp_path / "report.json").protocol
    assert (loaded.single_gallery_shot, loaded.cameras) == (False, True)


def test_reports_from_before_there_were_results_of_queries_are_loaded(tmp_path: Path) -> None:
    report = random_report(1, per_query=False).to_dict()
    for name in ("weights", "warnings"):
        del report[name]
    del report["metrics"]["intervals"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    (loaded,) = load_reports(tmp_path / "report.json")
    assert (loaded.weights, list(loaded.warnings), loaded.per_query) == (None, [], None)
    assert format_intervals([loaded]) == ""


def test_results_of_queries_are_saved_a_line_a_column(tmp_path: Path) -> None:
    reports = [random_report(1, warnings=("something",)), random_report(2, per_query=False)]
    path = tmp_path / "reports.json"
    save_reports(reports, path)
    assert load_reports(path) == reports
    saved, other = json.loads(path.read_text())
    assert "per_query" not in other
    columns = saved["per_query"]
    assert list(columns) == [
        *("path", "pid", "camid", "average_precision", "average_precision_trapezoid"),
        *("inverse_negative_penalty", "first_match_rank"),
    ]
    assert {len(column) for column in columns.values()} == {40}
    assert columns["path"][3] == "query/3.jpg"
    # Person 9 is not in the gallery.
    assert columns["average_precision"][9] is columns["first_match_rank"][9] is None
    counted = [score for score in columns["average_precision"] if score is not None]
    assert np.mean(counted) == pytest.approx(saved["metrics"]["mAP"])
    assert len([line for line in path.read_text().splitlines() if '"pid": [' in line]) == 1


def test_scores_have_intervals_over_people() -> None:
    report = random_report(1)
    intervals = report.metrics["intervals"]
    scores = np.array(report.per_query["average_precision"], dtype=float)
    expected = bootstrap_interval(scores, PIDS)
    assert intervals["mAP"] == (expected.low, expected.high)
    ranks = np.array(report.per_query["first_match_rank"], dtype=float)
    hits = np.where(np.isnan(ranks), np.nan, ranks == 1)
    assert intervals["rank-1"] == bootstrap_interval(hits, PIDS)[:2]
    assert {name: intervals[name] for name in ("level", "resamples", "seed", "identities")} == {
        "level": 0.95, "resamples": 10_000, "seed": 0, "identities": 9,
    }  # fmt: skip
    for score in ("mAP", "mAP_trapezoid", "mINP"):
        low, high = intervals[score]
        assert low < report.metrics[score] < high
    text = format_intervals([report, make_report()])
    low, high = (100 * end for end in intervals["mAP"])
    assert text.startswith(
        f"tiny: 95 % interval over its 9 people: mAP {low:.1f} to {high:.1f}, ra"
    )
    assert len(text.splitlines()) == 1


def test_one_person_has_no_interval_and_expectations_have_none_of_rank_1() -> None:
    assert "intervals" not in make_report().metrics
    intervals = random_report(1, single_gallery_shot=True).metrics["intervals"]
    assert "mINP" in intervals
    assert "rank-1" not in intervals


def test_reports_in_other_units_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**make_report().to_dict(), "units": "percent"}))
    with pytest.raises(ValueError, match="fractions"):
        Report.load(path)


def test_the_table_shows_percent_and_names_both_conventions() -> None:
    header, rule, row, blank, note = format_table([make_report()]).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    names = [cell.strip() for cell in header.strip("|").split("|")]
    assert dict(zip(names, cells, strict=True)) == {
        "model": "test_resnet",
        "data set": "tiny",
        "test": "256x128, embedding, cosine",
        "mAP": "50.0",
        "mAP (trapezoid)": "25.0",
        "mINP": "50.0",
        "rank-1": "0.0",
        "rank-5": "100.0",
        "rank-10": "100.0",
    }
    assert len(header) == len(rule) == len(row)
    assert blank == ""
    assert "percent" in note
    assert "mAP (trapezoid): trapezoid AP (Market-1501" in note


def test_the_table_tells_tests_apart() -> None:
    fancy = dataclasses.replace(
        PROTOCOL, metric="euclidean", flip=True, rerank=Reranking(), amp_dtype="float16"
    )
    table = format_table([make_report(), make_report(fancy)])
    assert "256x128, embedding, euclidean, flip, re-ranked (20, 6, 0.3), float16" in table


def test_ranks_beyond_the_curve_are_left_open() -> None:
    row = format_table([make_report(max_rank=5)]).splitlines()[2]
    assert [cell.strip() for cell in row.strip("|").split("|")][-2:] == ["100.0", "-"]


def test_protocol_follows_from_how_timm_prepares_images():
    model = timm.create_model("test_rga_resnet", img_size=(96, 48))
    config = resolve_data_config({"input_size": (3, 96, 48)}, model=model)
    protocol = Protocol.of_data_config(config, flip=True)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert protocol == Protocol((96, 48), "bilinear", mean, std, flip=True)
    assert protocol == Protocol.of_data_config({**config, "input_size": [3, 96, 48]}, flip=True)
