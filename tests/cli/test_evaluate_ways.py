"""Ways to test with evaluate.py: several processes, multi-query, expansion, verification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from embed_runs import MODEL, arguments, evaluate, in_processes, run
from PIL import Image

from rga_timm.cli import evaluate as evaluate_script
from rga_timm.data import ReidImage, ReidSplits
from rga_timm.data.datasets.table import write_table
from rga_timm.evaluation import Report, pool_queries, read_embeddings, verify
from rga_timm.evaluation import evaluate as evaluate_features


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Five people, of whom one camera has two queries each."""
    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)

    def image(name: str, pid: int, camid: int) -> ReidImage:
        Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(root / name)
        return ReidImage(name, pid, camid)

    splits = ReidSplits.from_images(
        "people",
        root,
        query=[image(f"q{i}{j}.png", i, 1 + (j == 2)) for j in range(3) for i in range(5)],
        gallery=[image(f"g{i}{j}.png", i, 2 + j % 2) for i in range(7) for j in range(4)],
    )
    write_table(splits, root / "people.csv")
    table = root / "people.csv"
    return (*MODEL, "--dataset", "table", "--data-dir", table, "--batch-size", 4)


@pytest.mark.parametrize("test", [(), ("--rerank", "--k1", 5, "--k2", 2, "--fpr", 0.1)])
def test_two_processes_write_the_report_of_one(
    tmp_path: Path, options: tuple[object, ...], test: tuple[object, ...]
) -> None:
    process = in_processes(2, *options, *test, "--output", tmp_path / "two.json", verb="evaluate")
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert out.count("| model") == 1  # one of them speaks
    one = evaluate(*options, *test, "--output", tmp_path / "one.json")
    assert one == Report.load(tmp_path / "two.json")


def stored(folder: Path) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    found = read_embeddings(folder)
    sides = []
    for split in ("query", "gallery"):
        rows = np.array(found.splits) == split
        sides.append((found.features[rows], found.pids[rows], found.camids[rows]))
    return sides[0], sides[1]


def test_multi_query_and_expansion_are_those_of_the_library(
    tmp_path: Path, options: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(*options, "--output", tmp_path / "e")
    query, gallery = stored(folder)
    features, pids, camids, first = pool_queries(*query)
    assert (len(pids), len(query[1])) == (10, 15)
    expected = evaluate_features(features, pids, camids, *gallery, expand={"k": 2, "alpha": 0.0})
    how = ("--multi-query", "--query-expansion", "--expand-k", 2, "--expand-alpha", 0)
    report = evaluate(*options, *how, "--output", tmp_path / "report.json")
    assert "multi-query, queries expanded (2, 0)" in capsys.readouterr().out
    assert report.metrics["mAP"] == expected.mAP
    assert report.per_query is not None
    assert report.per_query["pid"] == query[1][first].tolist()
    assert report.per_query["first_match_rank"] == expected.first_match_rank.tolist()
    assert evaluate("--embeddings", folder, *how, "--output", tmp_path / "s.json") == report
    assert Report.load(tmp_path / "report.json") == report


def test_verification_stands_in_the_report_and_on_the_terminal(
    tmp_path: Path, options: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(*options, "--output", tmp_path / "e")
    query, gallery = stored(folder)
    expected = verify(*query, *gallery, fprs=[0.05, 0.5])
    report = evaluate(*options, "--fpr", 0.05, 0.5, "--output", tmp_path / "report.json")
    found = report.metrics["verification"]
    assert found["num_impostor"] == expected.num_impostor
    assert [point["tpr"] for point in found["points"]] == [p.tpr for p in expected.points]
    assert [point["threshold"] for point in found["points"]] == [
        p.threshold for p in expected.points
    ]
    out = capsys.readouterr().out
    assert f": {expected.points[0].tpr:.2%} of the pairs of one person" in out
    again = Report.load(tmp_path / "report.json").metrics["verification"]
    assert again["points"][1]["fpr"] == expected.points[1].fpr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--fpr", 1.5), "--fpr: must be at most 1, not 1.5"),
        (("--expand", "--metric", "euclidean"), "--query-expansion goes with --metric cosine"),
        (("--expand", "--expand-k", 0), "--expand-k: must be at least 1"),
        (("--expand", "--expand-k", 1000), "k = 1000 neighbours are asked of a gallery of"),
        (("--expand", "--expand-alpha", -1), "--expand-alpha: must be at least 0"),
    ],
)
def test_what_does_not_fit_ends_before_any_work(
    options: tuple[object, ...],
    wrong: tuple[object, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        evaluate_script.main(arguments(*options, *wrong))
    assert message in capsys.readouterr().err
