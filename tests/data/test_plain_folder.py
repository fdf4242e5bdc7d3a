from __future__ import annotations

import os
from pathlib import Path

import pytest

from rga_timm.data import read_images


def test_images_come_sorted_and_without_persons_or_cameras(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["b/2.JPG", "b.png", "a/c/1.jpeg", "a/9.webp", "10.bmp", ".hidden/x.png", "a/._1.png"]
    for name in [*names, "a/notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    reader = read_images(tmp_path)
    paths = [image.path for image in reader.images]
    assert paths == ["10.bmp", "a/9.webp", "a/c/1.jpeg", "b.png", "b/2.JPG"]
    assert {*reader.pids} == {*reader.camids} == {*reader.tracklets} == {-1}
    assert reader.root == tmp_path
    assert "ignored 1 files that are not images, such as notes.txt" in caplog.text


@pytest.mark.faults
def test_each_image_comes_once_and_pipes_do_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    (tmp_path / "0").symlink_to(tmp_path / "a")  # before its target, which gives the name
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "root").symlink_to("/")
    os.mkfifo(tmp_path / "a" / "2.jpg")
    assert [image.path for image in read_images(tmp_path).images] == ["a/1.jpg"]


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"holds no images, .* found .*notes\.txt"):
        read_images(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        read_images(tmp_path / "nowhere")
