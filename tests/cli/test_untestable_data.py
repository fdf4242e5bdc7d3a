"""A set on which nothing can be scored is told before any work, by every command alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from embed_runs import MODEL, arguments
from PIL import Image

from rga_timm.cli import embed, evaluate, finetune, report
from rga_timm.evaluation import read_embeddings

pytestmark = pytest.mark.faults

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
ONE_CAMERA = "all queries and gallery images are of camera 1, and a match is an image of another"
ALONE = "the person of 4 is in the gallery only as the query itself"


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def untestable(tmp_path: Path) -> dict[str, tuple[str, Path, str]]:
    """Data sets with the reason why nothing can be scored on them."""
    for i, folder in enumerate(FOLDERS):
        for pid in range(1 + 4 * (i > 0), 5 + 4 * (i > 0)):
            for shot in range(2):
                write(tmp_path / "market" / folder / f"{pid:04d}_c1s1_{shot:04d}_{i:02d}.jpg", pid)
    for split, images in (("train", 2), ("test", 1)):
        for pid in range(4):
            for shot in range(images):
                write(tmp_path / "people" / split / f"{split}{pid}" / f"{shot}.png", pid)
    return {
        "market1501": ("market1501", tmp_path / "market", ONE_CAMERA),
        "folder": ("folder", tmp_path / "people", ALONE),
    }


def refused(command, capsys: pytest.CaptureFixture[str], *options: object) -> str:
    with pytest.raises(SystemExit) as end:
        command.main(arguments(*options))
    return f"{end.value} {capsys.readouterr().err}"


@pytest.mark.usefixtures("no_model_is_made")
@pytest.mark.parametrize("name", ["market1501", "folder"])
def test_what_cannot_be_scored_is_refused_before_any_work(
    untestable: dict, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    spec, root, reason = untestable[name]
    data = ("--dataset", spec, "--data-dir", root)
    other = ("--dataset", "market1501", "--data-dir", people)
    other += ("--eval-dataset", spec, "--eval-data-dir", root)
    run = ("--model", "test_rga_resnet", "--no-pretrained", "--output", tmp_path / "run")
    tested = ("test_rga_resnet", "--no-pretrained", *data)
    for command, options in (
        (finetune, (*run, *data)),
        (finetune, (*run, *other)),
        (evaluate, (*tested, "--output", tmp_path / "report.json")),
        (report, (*tested, "--output", tmp_path / "report.html")),
    ):
        sentence = f"{name} cannot be tested on: no query has a match: {reason}"
        assert sentence in refused(command, capsys, *options)
    assert not list(tmp_path.glob("report*"))


def test_it_is_embedded_with_a_warning(
    untestable: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, root, reason = untestable["folder"]
    options = (*MODEL, "--dataset", spec, "--data-dir", root)
    folder = embed.main(arguments(*options, "--output", tmp_path / "embeddings"))
    assert len(read_embeddings(folder)) == 8
    warning = "The embeddings can be searched, but not evaluated: folder cannot be tested on: "
    assert f"{warning}no query has a match: {reason}" in caplog.text
    caplog.clear()
    embed.main(arguments(*options, "--splits", "train", "--output", tmp_path / "train"))
    assert "evaluated" not in caplog.text
