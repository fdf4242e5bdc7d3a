from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from embed_runs import MODEL, arguments, evaluate, run
from PIL import Image

from rga_timm.cli import evaluate as evaluate_script
from rga_timm.data import ReidImage, ReidReader, ReidSplits, create_dataset
from rga_timm.data.datasets.table import write_table
from rga_timm.evaluation import Report, read_embeddings


def tracklet_set(root: Path) -> Path:
    """Four people, a query each of one image, tracklets of two in the gallery; a table."""
    rng = np.random.default_rng(0)

    def image(name: str, pid: int, camid: int, tracklet: int = -1) -> ReidImage:
        Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(root / name)
        return ReidImage(name, pid, camid, tracklet)

    splits = ReidSplits.from_images(
        "people",
        root,
        train=[image(f"t{i}.png", 10 + i, 1) for i in range(3)],
        query=[image(f"q{i}.png", i, 1) for i in range(4)],
        gallery=[image(f"g{i}{j}.png", i, 2 + i % 2, 5 * i) for i in range(4) for j in range(2)],
    )
    write_table(splits, root / "people.csv")
    return root / "people.csv"


@pytest.mark.parametrize(
    "scoring", [(), ("--metric", "euclidean", "--rerank", "--k1", 4, "--k2", 2)]
)
def test_evaluating_what_is_stored_equals_evaluating_the_model(
    people: Path, tmp_path: Path, scoring: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model = (*MODEL, "--dataset", "market1501", "--data-dir", people, "--flip", "--scales", 1, 1.5)
    folder = run(*model, "--output", tmp_path / "e", "--batch-size", 3, "--shard-size", 7)
    capsys.readouterr()
    direct = evaluate(*model, *scoring, "--output", tmp_path / "direct.json")
    table = capsys.readouterr().out
    stored = evaluate("--embeddings", folder, *scoring, "--output", tmp_path / "report.json")
    assert capsys.readouterr().out == table
    assert stored == direct == Report.load(tmp_path / "report.json")


def test_tracklets_are_stored_image_by_image_and_evaluated_as_one(tmp_path: Path) -> None:
    table = tracklet_set(tmp_path)
    model = (*MODEL, "--dataset", "table", "--data-dir", table)
    folder = run(*model, "--output", tmp_path / "e", "--shard-size", 5)
    splits = create_dataset("table", table)
    found = read_embeddings(folder)
    assert found.paths == [image.path for image in (*splits.query.images, *splits.gallery.images)]
    assert found.splits == ["query"] * 4 + ["gallery"] * 8
    assert found.pids.tolist() == [*splits.query.pids, *splits.gallery.pids]
    assert found.camids.tolist() == [*splits.query.camids, *splits.gallery.camids]
    assert found.tracklets.tolist() == [*splits.query.tracklets, *splits.gallery.tracklets]
    assert len({*found.tracklets}) == 5
    direct, stored = evaluate(*model), evaluate("--embeddings", folder)
    assert stored == direct
    assert direct.dataset["gallery"]["tracklets"] == 4


def test_reranking_wider_than_the_tracklets_ends_before_any_work(
    tmp_path: Path, no_model_is_made: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (*MODEL, "--dataset", "table", "--data-dir", tracklet_set(tmp_path))
    with pytest.raises(SystemExit):
        evaluate(*data, "--rerank", "--k1", 8)
    assert "k1 = 8 must be below, k2 = 6 at most, the 8 images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate(*data, "--expand", "--expand-k", 5)
    assert "asked of a gallery of 4 images" in capsys.readouterr().err


def test_queries_that_become_one_count_as_one() -> None:
    reader = ReidReader("", [ReidImage(f"{i}.png", i % 2, i % 3) for i in range(12)])
    assert evaluate_script.count_ranked(reader) == 12
    assert evaluate_script.count_ranked(reader, multi_query=True) == 6


def test_any_split_is_embedded_with_the_person_ids_as_the_data_set_has_them(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = (*MODEL, "--dataset", "market1501", "--data-dir", people)
    folder = run(*model, "--output", tmp_path / "e", "--splits", "train")
    found, train = read_embeddings(folder), create_dataset("market1501", people).train
    assert {*found.splits} == {"train"}
    assert found.pids.tolist() == train.pids.tolist()
    with pytest.raises(SystemExit):
        evaluate("--embeddings", folder)
    assert "of train, but not of query and gallery" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name a MODEL to evaluate, stored --embeddings, or reports"),
        (("test_resnet", "--embeddings", "e"), "--embeddings does not go with MODEL"),
        (("--embeddings", "e", "--flip", "--img-size", 9, 9), "go with --img-size, --flip"),
        (("--embeddings", "nowhere"), "nowhere does not exist"),
        (("--embeddings", "nowhere", "a/../nowhere"), "nowhere twice"),
    ],
)
def test_evaluate_tells_what_does_not_go_with_embeddings(
    options: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        evaluate(*options)
    assert message in capsys.readouterr().err


def test_several_folders_make_one_table(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--dataset", "market1501", "--data-dir", people)
    folders = [run(*MODEL, *data, "--output", tmp_path / "a")]
    folders.append(run(*MODEL, *data, "--output", tmp_path / "b", "--flip"))
    reports = evaluate_script.main(arguments("--embeddings", *folders))
    assert [report.protocol.flip for report in reports] == [False, True]
    assert capsys.readouterr().out.count("test_rga_resnet") == 2
