from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cuhk03_files
import numpy as np
import pytest
from cuhk03_files import pictures
from PIL import Image

from rga_timm.cli import extract_cuhk03
from rga_timm.data import ReidDataset, create_dataset

CLASSIC = "cuhk03:protocol=classic"
CONFIGS = [f"cuhk03_new_protocol_config_{boxes}.mat" for boxes in ("detected", "labeled")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive") / "cuhk03"
    cuhk03_files.write_mat(root / "cuhk03_release" / "cuhk-03.mat")
    cuhk03_files.write_new_protocol(root)
    return root


@pytest.fixture(scope="module")
def extracted(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(archive, tmp_path_factory.mktemp("extracted") / "cuhk03")


def run(archive: Path, output: Path) -> Path:
    extract_cuhk03.main([str(archive), "--output", str(output)])
    return output


def contents(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_every_image_becomes_a_png_file_with_the_same_pixels(extracted: Path) -> None:
    for boxes in ("detected", "labeled"):
        shots = pictures(boxes)
        folder = extracted / f"images_{boxes}"
        assert sorted(os.listdir(folder)) == [shot.name for shot in shots]
        for shot in shots:
            with Image.open(folder / shot.name) as image:
                assert image.format == "PNG"
                assert np.array_equal(np.asarray(image), shot.pixels)


@pytest.mark.parametrize(
    "spec",
    ["cuhk03", "cuhk03:boxes=labeled", CLASSIC, f"{CLASSIC},boxes=labeled,split=1"],
)
def test_the_files_are_read_as_the_archive_is(archive: Path, extracted: Path, spec: str) -> None:
    raw, files = create_dataset(spec, archive), create_dataset(spec, extracted)
    assert raw.root == archive / "cuhk03_release"
    assert files.root == extracted
    assert raw.train.opener is not None
    assert files.train.opener is None
    for split, reader in raw.readers.items():
        other = files.readers[split]
        assert reader.images == other.images
        pairs = zip(ReidDataset(reader), ReidDataset(other), strict=True)
        for (pixels, target), (other_pixels, other_target) in pairs:
            assert np.array_equal(np.asarray(pixels), np.asarray(other_pixels))
            assert target.tolist() == other_target.tolist()
    assert raw.fingerprint == files.fingerprint
    assert raw.single_gallery_shot == files.single_gallery_shot


def test_all_test_sets_go_along_without_paths(archive: Path, extracted: Path) -> None:
    for split in range(20):
        spec = f"{CLASSIC},split={split}"
        raw, files = create_dataset(spec, archive), create_dataset(spec, extracted)
        assert raw.fingerprint == files.fingerprint
    text = (extracted / "cuhk03_test_sets.json").read_text()
    assert json.loads(text)["test_sets"][0] == ["1_002", "1_005", "2_001"]
    assert str(archive) not in text
    assert "/" not in text


def test_the_lists_of_the_new_protocol_are_copied(archive: Path, extracted: Path) -> None:
    for name in CONFIGS:
        assert (extracted / name).read_bytes() == (archive / name).read_bytes()


def test_extracted_next_to_the_archive_the_files_are_what_is_read(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cuhk03"
    shutil.copytree(archive, root)
    before = create_dataset(CLASSIC, root)
    extract_cuhk03.main([str(root)])
    after = create_dataset(CLASSIC, root)
    assert (before.root, after.root) == (root / "cuhk03_release", root)
    assert before.fingerprint == after.fingerprint
    assert "not found" not in capsys.readouterr().out


def test_who_lacks_the_new_protocol_is_told_and_has_the_classic_one(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = run(archive / "cuhk03_release", tmp_path / "with")
    assert "not found" not in capsys.readouterr().out  # they are in the folder above
    shutil.copytree(archive / "cuhk03_release", tmp_path / "only")
    output = run(tmp_path / "only", tmp_path / "without" / "them")
    assert f"{' and '.join(CONFIGS)} not found" in capsys.readouterr().out
    assert len(create_dataset(CLASSIC, output).query) > 0


class Stopped:
    """Lets the saving of images go wrong after some, with half a file written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
        self.saved: list[Path] = []
        original = Image.Image.save

        def save(image: Image.Image, path: Path, *args: str) -> None:
            if len(self.saved) == after:
                Path(path).write_bytes(b"\x89PNG half")
                raise error
            self.saved.append(Path(path))
            original(image, path, *args)

        monkeypatch.setattr(Image.Image, "save", save)


def test_interrupted_it_goes_on_where_it_was(
    archive: Path,
    extracted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Stopped(monkeypatch, 30, KeyboardInterrupt())
    with pytest.raises(SystemExit) as stop:
        run(archive, tmp_path)
    assert stop.value.code == 130
    assert "Run the same command again" in capsys.readouterr().err
    there = contents(tmp_path)
    assert len(there) == 30  # no half file, no list that says that all are there
    with pytest.raises(FileNotFoundError):
        create_dataset(CLASSIC, tmp_path)

    monkeypatch.undo()
    again = Stopped(monkeypatch, -1, AssertionError())
    run(archive, tmp_path)
    everything = len(pictures("detected")) + len(pictures("labeled"))
    assert len(again.saved) == everything - 30
    assert contents(tmp_path) == contents(extracted)


def test_files_that_were_cut_off_are_written_again_and_whole_ones_are_not(
    archive: Path, extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(extracted, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "images_detected"
    cut, empty = folder / "1_001_1_01.png", folder / "1_001_1_02.png"
    cut.write_bytes(cut.read_bytes()[:-1])
    empty.write_bytes(b"")
    (folder / ".1_001_1_01.png.tmp").write_bytes(b"left by a power cut")
    again = Stopped(monkeypatch, -1, AssertionError())
    run(archive, tmp_path)
    assert [path.name for path in again.saved] == [f".{path.name}.tmp" for path in (cut, empty)]
    assert contents(tmp_path) == contents(extracted)


def test_a_full_disk_is_told_in_words_and_nothing_half_stays(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stopped(monkeypatch, 3, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(SystemExit, match=r"no space left .*--output.*Run the same command again"):
        run(archive, tmp_path)
    assert len(contents(tmp_path)) == 3


def test_images_that_went_missing_after_extraction_are_told(
    extracted: Path, tmp_path: Path
) -> None:
    shutil.copytree(extracted, tmp_path, dirs_exist_ok=True)
    (tmp_path / "images_labeled" / "1_001_1_01.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"extract-cuhk03 again"):
        create_dataset(f"{CLASSIC},boxes=labeled", tmp_path)
    create_dataset(CLASSIC, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not a JSON file"),
        ("[]", "is not what rga-timm extract-cuhk03 writes"),
        ('{"test_sets": [["1_2_3"]], "num_images": {}}', "is not what rga-timm extract"),
        ('{"test_sets": [["1_001"]], "num_images": 3}', "is not what rga-timm extract"),
    ],
)
def test_a_list_of_another_kind_is_an_error(
    extracted: Path, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "images_detected").symlink_to(extracted / "images_detected")
    (tmp_path / "cuhk03_test_sets.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        create_dataset(CLASSIC, tmp_path)


def test_a_split_that_a_shorter_list_lacks_is_an_error(extracted: Path, tmp_path: Path) -> None:
    (tmp_path / "images_detected").symlink_to(extracted / "images_detected")
    content = json.loads((extracted / "cuhk03_test_sets.json").read_text())
    content["test_sets"] = content["test_sets"][:2]
    (tmp_path / "cuhk03_test_sets.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has 2 test sets: there is no split=2"):
        create_dataset(f"{CLASSIC},split=2", tmp_path)


def test_a_folder_without_the_archive_and_a_broken_one_end_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"cuhk03 was not found in .*cuhk-03\.mat"):
        extract_cuhk03.main([str(tmp_path)])
    (tmp_path / "cuhk-03.mat").write_text("<html>")
    with pytest.raises(SystemExit, match="it is a web page"):
        extract_cuhk03.main([str(tmp_path)])


def test_ctrl_c_ends_the_command_without_a_traceback(
    archive: Path, extracted: Path, tmp_path: Path
) -> None:
    # Images are held up, so that the command is at work when the signal comes.
    slow = (
        "import sys, time; from rga_timm.cli import extract_cuhk03 as command\n"
        "read = command.read_pixels\n"
        "command.read_pixels = lambda *args: time.sleep(0.2) or read(*args)\n"
        "command.main(sys.argv[1:])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", slow, str(archive), "--output", str(tmp_path)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.png"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted. Run the same command again" in errors
    run(archive, tmp_path)
    assert contents(tmp_path) == contents(extracted)
