from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_reports import DATASET, PIDS, random_report

from rga_timm.evaluation import (
    DifferentProtocolsError,
    Report,
    Reranking,
    check_same_protocol,
    format_card,
    format_comparison,
    load_reports,
    match_reports,
    paired_difference,
)
from rga_timm.evaluation.reports.compare import paired_scores, protocol_differences

A, B = random_report(1, 2.0, model="weak"), random_report(2, 1.0, model="strong")


def cells(text: str, first: str) -> list[str]:
    """Of the table's row that begins so."""
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in row.strip("|").split("|")]


def with_dataset(report: Report, **changes: Any) -> Report:
    dataset = {name: v for name, v in {**report.dataset, **changes}.items() if v is not None}
    return dataclasses.replace(report, dataset=dataset)


def test_scores_stand_side_by_side_in_percent_with_their_difference() -> None:
    text = format_comparison({"a.json": A, "b.json": B})
    assert A.metrics["mAP"] < B.metrics["mAP"]
    assert "A: weak (a.json)\nB: strong (b.json)" in text
    for label, name in (("mAP", "mAP"), ("mAP (trapezoid)", "mAP_trapezoid"), ("mINP", "mINP")):
        a, b = A.metrics[name], B.metrics[name]
        row = f"| {label} "
        first, *_ = (line for line in text.splitlines() if line.startswith(row))
        assert [cell.strip() for cell in first.strip("|").split("|")][1:] == [
            *(f"{100 * a:.1f}", f"{100 * b:.1f}", f"{100 * (b - a):+.1f}")
        ]
    assert "step AP" in text


def test_further_reports_are_compared_to_the_first() -> None:
    text = format_comparison({"a": A, "b": B, "c": random_report(3, 0.5)})
    assert cells(text, "score (%)")[1:] == ["A", "B", "C", "B - A", "C - A"]
    tables = [line.split("|")[2].strip() for line in text.splitlines() if "by query" in line]
    assert tables == ["B - A", "C - A"]


def test_the_paired_difference_is_that_of_the_function() -> None:
    found = paired_scores(A, B)
    assert list(found) == ["mAP", "mAP_trapezoid", "mINP", "rank-1", "rank-5", "rank-10"]
    values = [np.array(r.per_query["average_precision"], dtype=float) for r in (A, B)]
    assert found["mAP"].difference == paired_difference(*values, PIDS)
    assert found["mAP"].difference.value == pytest.approx(B.metrics["mAP"] - A.metrics["mAP"])
    for k in (1, 5, 10):
        expected = B.metrics["cmc"][k - 1] - A.metrics["cmc"][k - 1]
        assert found[f"rank-{k}"].difference.value == pytest.approx(expected)
    a, b = values
    for score, (worse, better) in {"mAP": (a > b, b > a)}.items():
        assert (found[score].a_better, found[score].b_better) == (worse.sum(), better.sum())
    assert found["mAP"].a_better + found["mAP"].b_better + found["mAP"].same == 36  # that count
    text = format_comparison({"a": A, "b": B})
    low, high = (100 * end for end in found["rank-1"].difference.interval[:2])
    assert f"| {low:+.1f} to {high:+.1f} |" in text
    assert "over the 9 people" in text


def test_the_order_of_the_queries_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(40)
    shuffled = {name: [column[i] for i in order] for name, column in B.per_query.items()}
    assert paired_scores(A, dataclasses.replace(B, per_query=shuffled)) == paired_scores(A, B)


def test_queries_cut_out_of_one_image_are_paired_in_their_order() -> None:
    boxes = [dataclasses.replace(r, per_query={**r.per_query, "path": ["x"] * 40}) for r in (A, B)]
    assert paired_scores(*boxes) == paired_scores(A, B)
    turned = {name: column[::-1] for name, column in boxes[1].per_query.items()}
    with pytest.raises(ValueError, match="the queries are not the same"):
        paired_scores(boxes[0], dataclasses.replace(B, per_query=turned))


def test_without_results_of_each_query_the_difference_stands_alone() -> None:
    text = format_comparison({"a": A, "b": random_report(2, per_query=False)})
    assert "No confidence interval of B - A: that takes the results of each query" in text
    assert "rga-timm evaluate --output" in text
    assert "better" not in text


def test_ranks_are_not_paired_where_they_are_expectations() -> None:
    reports = [random_report(seed, single_gallery_shot=True) for seed in (1, 2)]
    assert list(paired_scores(*reports)) == ["mAP", "mAP_trapezoid", "mINP"]
    assert "rank-1" not in reports[0].metrics["intervals"]


def test_other_queries_are_not_paired() -> None:
    other = {**B.per_query, "path": [f"other/{i}.jpg" for i in range(40)]}
    with pytest.raises(ValueError, match="the queries are not the same"):
        paired_scores(A, dataclasses.replace(B, per_query=other))
    with pytest.raises(ValueError, match="the test images are not the same"):
        paired_scores(A, with_dataset(B, test_fingerprint="d" * 64))
    parts = {"name": "tiny:split=all", "partitions": [DATASET]}
    means = [dataclasses.replace(r, dataset=parts, per_query=None) for r in (A, B)]
    with pytest.raises(ValueError, match="the mean over partitions has no queries of its own"):
        paired_scores(*means)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": True}, r"flip: no \(a\), yes \(b\)"),
        ({"metric": "euclidean"}, r"distance: cosine \(a\), euclidean \(b\)"),
        (
            {"rerank": Reranking(k1=5)},
            r"re-ranking: none \(a\), Reranking\(k1=5, k2=6, lambda_value=0.3\) \(b\)",
        ),
        ({"cameras": False}, r"cameras known: yes \(a\), no \(b\)"),
        ({"single_gallery_shot": True}, r"single gallery shot: no \(a\), yes \(b\)"),
    ],
)
def test_other_tests_are_refused_with_what_differs(changes: dict[str, Any], message: str) -> None:
    other = random_report(2, **changes)
    with pytest.raises(DifferentProtocolsError, match=message):
        check_same_protocol({"a": A, "b": other})
    with pytest.raises(DifferentProtocolsError, match="different protocols"):
        format_comparison({"a": A, "b": other})
    text = format_comparison({"a": A, "b": other}, allow_different=True)
    assert text.startswith("WARNING: the reports are of different protocols")
    assert "by query" in text  # the queries are the same all the same


def test_other_test_images_are_refused() -> None:
    other = with_dataset(B, test_fingerprint="d" * 64, gallery={"images": 61, "ids": 12})
    with pytest.raises(DifferentProtocolsError) as error:
        check_same_protocol({"a": A, "b": other})
    assert "data set's gallery: 60 images, 12 ids (a), 61 images, 12 ids (b)" in str(error.value)
    assert f"data set's test fingerprint: {'e' * 64} (a), {'d' * 64} (b)" in str(error.value)
    text = format_comparison({"a": A, "b": other}, allow_different=True)
    assert "No confidence interval of B - A: the test images are not the same." in text


def test_what_is_the_models_own_may_differ_and_is_shown() -> None:
    own = {"img_size": (384, 128), "interpolation": "bicubic", "mean": (0.0, 0.0, 0.0)}
    other = random_report(2, std=(1.0, 1.0, 1.0), feature="pooled", amp_dtype="float16", **own)
    other = dataclasses.replace(other, software={**other.software, "torch": "0.1"})
    text = format_comparison({"a": A, "b": other})
    assert cells(text, "model: image size")[1:] == ["256x128", "384x128"]
    assert cells(text, "model: feature")[1:] == ["embedding", "pooled"]
    assert cells(text, "software: torch")[1:] == [A.software["torch"], "0.1"]
    same = text.partition("the same in all:")[2]
    assert f"- data set: test fingerprint: {'e' * 64}" in same
    assert "- test: distance: cosine" in same


def test_another_training_split_or_name_is_the_same_test() -> None:
    other = with_dataset(B, name="tiny:val=true", fingerprint="d" * 64, train={"images": 12})
    assert protocol_differences(A, other) == {}
    text = format_comparison({"a": A, "b": other})
    assert cells(text, "data set: train")[1:] == ["9 images, 3 ids", "12 images"]
    assert "by query" in text


def test_reports_without_the_test_fingerprint_compare_by_the_other() -> None:
    old = with_dataset(B, test_fingerprint=None)
    assert protocol_differences(A, old) == protocol_differences(old, A) == {}
    assert list(protocol_differences(A, with_dataset(old, fingerprint="d" * 64))) == [
        "data set's fingerprint"
    ]
    bare = [with_dataset(r, test_fingerprint=None, fingerprint=None) for r in (A, B)]
    assert protocol_differences(*bare) == {}
    assert protocol_differences(bare[0], with_dataset(bare[1], name="other"))


def test_partitions_are_compared_one_by_one() -> None:
    def mean(*fingerprints: str) -> Report:
        parts = [{"name": f"x:split={i}", "fingerprint": f} for i, f in enumerate(fingerprints)]
        return dataclasses.replace(A, dataset={"name": "x:split=all", "partitions": parts})

    assert protocol_differences(mean("a", "b"), mean("a", "b")) == {}
    assert protocol_differences(mean("a", "b"), mean("a", "c"))
    assert protocol_differences(mean("a", "b"), mean("a"))
    assert protocol_differences(mean("a", "b"), A)


def test_warnings_go_with_the_comparison() -> None:
    warned = random_report(2, warnings=("3 of 40 queries do not count",))
    text = format_comparison({"a": A, "b": warned})
    assert "B warns: 3 of 40 queries do not count" in text


def test_reports_in_one_file_are_matched_by_their_data_set() -> None:
    x, y, z = (with_dataset(A, name=name) for name in "xyz")
    groups = match_reports({"a": [x, y, z], "b": [z, x]})
    assert groups == [{"a": x, "b": x}, {"a": z, "b": z}]
    assert match_reports({"a": [x], "b": [y]}) == [{"a": x, "b": y}]
    with pytest.raises(ValueError, match=r"no data set that all files have .* a: x, y; b: z"):
        match_reports({"a": [x, y], "b": [z]})
    with pytest.raises(ValueError, match="b holds several reports of x"):
        match_reports({"a": [x, y], "b": [x, x]})
    with pytest.raises(ValueError, match="two reports or more"):
        match_reports({"a": [x, y]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[]", "holds no report"),
        ("[3]", "not a report of an evaluation"),
        ('{"mAP": 0.5}', "not a report of an evaluation"),
        (json.dumps({**A.to_dict(), "units": "percent"}), "not a report in fractions"),
        (json.dumps({**A.to_dict(), "protocol": {}}), "not a report that this version reads"),
        (json.dumps({**A.to_dict(), "future": 1}), "not a report that this version reads.*future"),
    ],
)
def test_files_that_are_no_reports_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"some.json: .*{message}"):
        load_reports(path)


def test_the_card_says_all_that_the_scores_depend_on() -> None:
    report = random_report(1, rerank=Reranking(), checkpoint="best.pth")
    text = format_card(report)
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert lines >= {
        "name net",
        "checkpoint best.pth",
        f"weights (sha256) {'0' * 63}1",
        "image size 256x128",
        "name tiny",
        "gallery 60 images, 12 ids",
        f"fingerprint {'f' * 64}",
        f"test fingerprint {'e' * 64}",
        "distance cosine",
        "flip no",
        "re-ranking Reranking(k1=20, k2=6, lambda_value=0.3)",
        "queries that count 36 of 40",
        f"scipy {report.software['scipy']}",
    }
    assert any(line.startswith("mAP step AP") for line in lines)
