from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rga_timm.cli import check_data
from rga_timm.data.checks import ImageFacts
from rga_timm.data.datasets import pedestrians

SMALL = {
    "train_ids": 3,
    "train_images": 6,
    "test_ids": 2,
    "distractors": 2,
    "junk": 2,
    "progress": False,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pedestrians.draw(tmp_path_factory.mktemp("drawn") / "pedestrians-1", **SMALL)


@pytest.fixture
def root(drawn: Path, tmp_path: Path) -> Path:
    """The drawn set, to be spoilt."""
    return Path(shutil.copytree(drawn, tmp_path / "pedestrians-1"))


def check(root: Path, *options: object, dataset: str | None = "pedestrians") -> dict[str, Any]:
    """What --json writes, with the exit code and the findings by kind."""
    output = root.parent / "found.json"
    named = ["--dataset", dataset] if dataset else []
    argv = [root, *named, "--workers", 0, "--json", output, *options]
    code = check_data.main([str(argument) for argument in argv])
    report = json.loads(output.read_text())
    kinds = {finding["kind"]: finding for finding in report["findings"]}
    return {**report, "code": code, "kinds": kinds}


def test_a_clean_data_set_is_clean(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(root)
    assert (report["code"], report["verdict"], report["findings"]) == (0, "OK", [])
    images = [path for path in root.rglob("*.jpg") if not path.name.startswith("-1")]
    assert report["images_decoded"] == len(images)
    assert report["dataset"]["name"] == "pedestrians"
    assert report["dataset"]["train"] == {"images": 18, "ids": 3, "cameras": 6}
    printed = capsys.readouterr().out
    assert "train    18" in printed
    assert printed.endswith(f"verdict: OK, {len(images)} images decoded\n")


def test_without_a_name_the_layout_is_found_and_other_counts_are_a_warning(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = check(root.parent, dataset=None)
    assert (report["code"], report["verdict"]) == (0, "warnings")
    assert list(report["kinds"]) == ["counts"]
    printed = capsys.readouterr().out
    assert f"{root} is in the layout of Market-1501 (market1501)" in printed
    assert "layout: the archive's own (bounding_box_train, query, bounding_box_test)" in printed
    assert "18 / 12936 *" in printed


def test_every_fault_is_found_in_one_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, query, gallery = (
        sorted((root / folder).glob("[0-9]*.jpg"))
        for folder in ("bounding_box_train", "query", "bounding_box_test")
    )
    cut, empty = train[0], train[1]
    cut.write_bytes(cut.read_bytes()[:500])
    empty.write_bytes(b"")
    pid = int(train[7].name[:4])
    shutil.copy(train[7], train[7].with_name("9998_c1s1_000001_00.jpg"))  # one image, two people
    shutil.copy(train[7], root / "query" / train[7].name)  # trained and tested on
    Image.new("RGB", (8, 8)).save(root / "bounding_box_test" / "0000_c1s1_000009_10.jpg")
    report = check(root)
    assert (report["code"], report["verdict"]) == (1, "errors")
    assert {kind: finding["level"] for kind, finding in report["kinds"].items()} == {
        "shared_pids": "warning",
        "single_images": "warning",
        "single_cameras": "warning",
        "unmatched_queries": "note" if len(query) >= 9 else "warning",
        "unreadable": "error",
        "tiny": "warning",
        "two_identities": "warning",
        "train_and_test": "warning",
    }
    bad = report["kinds"]["unreadable"]["items"]
    assert [item["path"] for item in bad] == [f"bounding_box_train/{p.name}" for p in (cut, empty)]
    assert report["kinds"]["shared_pids"]["items"] == [{"pid": pid}]
    printed = capsys.readouterr().out
    for finding in report["findings"]:
        assert finding["text"] in printed
        assert finding["fix"]
        assert finding["fix"] in printed
    assert len(gallery) == len(list((root / "bounding_box_test").glob("[0-9]*.jpg"))) - 1


def test_without_hashes_identical_images_are_not_looked_for(root: Path) -> None:
    image = next((root / "bounding_box_train").glob("*.jpg"))
    shutil.copy(image, image.with_name("9998_c1s1_000001_00.jpg"))
    assert "two_identities" in check(root, "--hash")["kinds"]
    assert "two_identities" not in check(root, "--no-hash")["kinds"]


def test_where_nothing_is_found_the_hints_are_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "Market-1501-v15.09.15.zip").touch()
    report = check(folder, dataset=None)
    assert (report["code"], report["dataset"]) == (1, None)
    assert list(report["kinds"]) == ["not_found", "packed"]
    assert "unzip Market-1501-v15.09.15.zip" in capsys.readouterr().out


def test_the_wrong_name_is_answered_with_the_right_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = check(root / "query", dataset="market1501")
    assert report["verdict"] == "warnings"  # the folder above is taken
    (root / "query" / "notes.txt").touch()
    report = check(root, dataset="market1501")
    assert report["code"] == 1
    assert "notes.txt is not named as in Market-1501" in report["kinds"]["cannot_read"]["text"]
    (root / "query" / "notes.txt").unlink()

    def fails(*_: object) -> None:
        raise ValueError("not here")

    monkeypatch.setattr(check_data, "create_dataset", fails)
    report = check(root)
    assert report["kinds"]["other"]["fix"] == "--dataset market1501?"


def test_after_an_interruption_what_was_found_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[ImageFacts]:
        yield ImageFacts(0, "the file is empty")
        yield ImageFacts(1, None, (64, 128), "a")
        raise KeyboardInterrupt

    monkeypatch.setattr(check_data.checks, "inspect_images", interrupted)
    report = check(root)
    assert report["code"] == 130
    assert report["images_decoded"] == 2
    assert list(report["kinds"]) == ["interrupted", "unreadable"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "market1502"], "did you mean 'market1501'"),
        (["--dataset", "duke"], "withdrawn by its authors"),
        (["--json", "nowhere/found.json"], "there is no folder nowhere to write found.json to"),
        (["--json", "nowhere/s.json"], "there is no folder nowhere"),
        (["--workers", "-1"], "--workers: must be at least 0, not -1"),
    ],
)
def test_bad_options_end_it_before_any_work(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        check_data.main([str(tmp_path), *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_it_runs_as_a_program_with_processes_and_ends_with_its_code(root: Path) -> None:
    arguments = ["check-data", str(root), "--dataset", "pedestrians"]
    command = [sys.executable, "-m", "rga_timm", *arguments]
    assert subprocess.run([*command, "--workers", "2"], capture_output=True).returncode == 0
    next((root / "query").glob("*.jpg")).write_bytes(b"")
    done = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "1 images cannot be read" in done.stdout
    assert not done.stderr
