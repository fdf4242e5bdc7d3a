from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import timm

from rga_timm.cli import evaluate as evaluate_verb
from rga_timm.data import create_dataset
from rga_timm.evaluation import Report, describe_training, hash_weights, load_reports
from rga_timm.hub import save_pretrained


def run(*arguments: object) -> list[Report]:
    return evaluate_verb.main([str(argument) for argument in arguments])


def evaluate(people: Path, *arguments: object) -> Report:
    data = ("--dataset", "market1501", "--data-dir", people, "--img-size", 64, 32)
    options = ("--device", "cpu", "--workers", 0)
    (report,) = run(*arguments, *data, *options)
    return report


@pytest.fixture(scope="module")
def reports(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two untrained models, and of one of them by another test."""
    folder = tmp_path_factory.mktemp("reports")
    for name, model, *options in (
        ("a", "test_resnet"),
        ("b", "test_vit"),
        ("flip", "test_vit", "--flip"),
        ("small", "test_vit", "--no-per-query"),
    ):
        evaluate(people, model, "--no-pretrained", *options, "--output", folder / f"{name}.json")
    return folder


def ends_with_2(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_two_reports_are_put_side_by_side(
    reports: Path, no_model_is_made: None, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = run("--compare", reports / "a.json", reports / "b.json")
    text = capsys.readouterr().out
    assert f"A: test_resnet ({reports / 'a.json'})" in text
    assert f"B: test_vit ({reports / 'b.json'})" in text
    difference = 100 * (b.metrics["mAP"] - a.metrics["mAP"])
    assert f"{difference:+.1f} |" in text
    assert "95 % interval" in text
    assert "over the 4 people" in text


def test_different_protocols_are_refused_unless_they_are_allowed(
    reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = reports / "b.json", reports / "flip.json"
    message = ends_with_2(capsys, "--compare", *files)
    assert f"flip: no ({files[0]}), yes ({files[1]})" in message
    assert "--allow-different-protocols compares them anyway" in message
    run("--compare", *files, "--allow-different-protocols")
    assert capsys.readouterr().out.startswith("WARNING: the reports are of different protocols")


def test_results_of_queries_are_written_unless_they_are_not_wanted(
    reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full, small = (json.loads((reports / f"{name}.json").read_text()) for name in ("b", "small"))
    assert full.pop("per_query")["path"][0].startswith("query/")
    assert full == small
    run("--compare", reports / "a.json", reports / "small.json")
    assert "No confidence interval of B - A" in capsys.readouterr().out


def test_the_card_is_printed_where_it_is_asked_for(
    people: Path, reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluate(people, "test_resnet", "--no-pretrained", "--card")
    printed = " ".join(capsys.readouterr().out.split())
    assert f"test fingerprint {report.dataset['test_fingerprint']}" in printed
    assert f"95 % interval over its {report.dataset['query']['ids']} people" in printed
    run("--compare", reports / "a.json", reports / "b.json", "--card")
    assert capsys.readouterr().out.count("queries that count   ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a MODEL to evaluate, stored --embeddings, or reports to --compare"),
        (["test_vit", "--compare", "a.json", "b.json"], "takes reports and no MODEL: test_vit"),
        (["--compare", "a.json", "b.json", "--output", "c.json"], "takes no --output"),
        (["--compare", "a.json", "b.json", "--embeddings", "e"], "and no --embeddings"),
        (["--compare", "a.json"], "two reports or more"),
        (["--compare", "a.json", "a.json"], "two reports or more, each once"),
        (["--compare", "a.json", "no_such.json"], "No such file or directory: 'no_such.json'"),
        (["--compare", "a.json", "other.json"], "other.json: not a report of an evaluation"),
        (["--compare", "a.json", "text.json"], "text.json: Expecting value"),
    ],
)
def test_bad_comparisons_end_with_a_message(
    reports: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (reports / "other.json").write_text("{}")
    (reports / "text.json").write_text("mAP 50 %")
    monkeypatch.chdir(reports)
    assert message in ends_with_2(capsys, *arguments)


def test_several_data_sets_in_a_file_are_compared_one_by_one(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        one = json.loads((reports / f"{name}.json").read_text())
        other = {**one, "dataset": {**one["dataset"], "name": f"{name}, another"}}
        third = {**one, "dataset": {**one["dataset"], "name": "third"}}
        (tmp_path / f"{name}.json").write_text(json.dumps([other, third, one]))
    files = tmp_path / "a.json", tmp_path / "b.json"
    compared = run("--compare", *files)
    assert [report.dataset["name"] for report in compared] == ["third"] * 2 + ["market1501"] * 2
    text = capsys.readouterr().out
    assert text.count("| mAP (trapezoid) |") == 4
    assert f"not in all files: a, another ({files[0]})" in text
    assert f"not in all files: b, another ({files[1]})" in text


def test_people_that_the_models_config_says_it_was_trained_on_are_warned_of(
    people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = create_dataset("market1501", people)
    tested = int(splits.query.pids[0])
    described: dict[str, Any] = describe_training(splits)
    described |= {"fingerprint": "of other images", "train_pids": str(tested)}
    model = timm.create_model("test_resnet", num_classes=3)
    folder = save_pretrained(model, tmp_path / "model", reid={"trained_on": [described]})
    with caplog.at_level(logging.WARNING):
        report = evaluate(people, f"local-dir:{folder}", "--output", tmp_path / "report.json")
    warnings = [text for text in report.warnings if "the model was trained on" in text]
    assert len(warnings) == 1
    assert f"(such as {tested})" in warnings[0]
    assert f"market1501: {warnings[0]}" in caplog.text
    assert load_reports(tmp_path / "report.json")[0].warnings == report.warnings
    assert report.weights == hash_weights(model)
