import io
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from noise_image import write_noise
from PIL import Image

from rga_timm.data import ReidImage, ReidReader, ReidSplits, find_bad_images, skip_bad_images
from rga_timm.data.checks import inspect_images


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def reader_of(root: Path, names: list[str], **arguments) -> ReidReader:
    for seed, name in enumerate(names):
        write_noise(root / name, seed)
    return ReidReader(root, [ReidImage(name, 1, 1) for name in names], **arguments)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncate, "truncated"),
        (lambda path: path.write_bytes(b""), r"^the file is empty \(0 bytes\)$"),
        (lambda path: path.write_bytes(b"hello"), "^not an image in a format that Pillow knows$"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html><p>404"), "^a web page, not an image"),
        (
            lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"),
            "^a Git LFS pointer",
        ),
        (Path.unlink, "^there is no such file$"),
        (lambda path: (path.unlink(), path.mkdir()), "(?i)is a directory|denied"),
    ],
)
def test_an_image_that_cannot_be_decoded_is_told_with_the_reason(
    tmp_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    reader = reader_of(tmp_path, ["a.jpg", "b.jpg", "c.png"])
    assert find_bad_images(reader, workers=0) == {}
    spoil(tmp_path / "b.jpg")
    ((index, found),) = find_bad_images(reader, workers=0).items()
    assert index == 1
    with pytest.raises(ValueError, match=reason):
        raise ValueError(found)
    assert str(tmp_path) not in found


def test_processes_find_what_one_finds_in_the_order_of_the_reader(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, [f"{i:03d}.png" for i in range(100)])
    for i in (70, 3, 99):
        truncate(tmp_path / f"{i:03d}.png")
    alone = list(inspect_images(reader, workers=0))
    assert list(inspect_images(reader, workers=2)) == alone
    assert [fact.position for fact in alone] == list(range(100))
    assert list(find_bad_images(reader, workers=2)) == [3, 70, 99]


def test_a_box_that_does_not_fit_its_image_is_a_reason(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.png")  # 16 by 32 pixels
    images = [ReidImage("a.png", 1, 1, box=box) for box in ((0, 0, 8, 8), (16, 0, 17, 8))]
    reader = ReidReader(tmp_path, images)
    assert list(find_bad_images(reader, workers=0)) == [1]
    assert "is outside the 16x32" in find_bad_images(reader, workers=0)[1]
    assert next(inspect_images(reader, workers=0)).size == (8, 8)


def test_images_behind_an_opener_are_opened_by_it_once_each(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("in.png", whole)
        archive.writestr("cut.png", whole[:-200])
    opened = []

    def opener(path: str) -> io.BytesIO:
        opened.append(path)
        with zipfile.ZipFile(tmp_path / "all.zip") as archive:
            return io.BytesIO(archive.read(path))

    images = [ReidImage(name, 1, 1) for name in ("in.png", "cut.png", "gone.png")]
    bad = find_bad_images(ReidReader(tmp_path, images, opener=opener), workers=0)
    assert list(bad) == [1, 2]
    assert "gone.png" in bad[2]  # a KeyError of zipfile's
    assert opened == ["in.png", "cut.png", "gone.png"]


def test_equal_pixels_have_equal_digests_whatever_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", dpi=(300, 300), compress_level=0)
    image.save(tmp_path / "c.bmp")
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "d.png")
    black = Image.new("L", (8, 4))
    black.save(tmp_path / "e.png")
    Image.new("L", (4, 8)).save(tmp_path / "f.png")  # as many black pixels
    names = ["a.png", "b.png", "c.bmp", "d.png", "e.png", "f.png"]
    reader = ReidReader(tmp_path, [ReidImage(name, 1, 1) for name in names])
    facts = list(inspect_images(reader, workers=0))
    a, b, c, d, e, f = (fact.digest for fact in facts)
    assert a == b == c
    assert len({a, d, e, f}) == 4
    assert {fact.digest for fact in inspect_images(reader, workers=0, hashes=False)} == {""}


@pytest.fixture
def splits(tmp_path: Path) -> ReidSplits:
    """Three people to train on, of whom 5 has one image; two to test on."""
    names = [f"{pid}_{i}.jpg" for pid in (3, 5, 9) for i in range(2) if (pid, i) != (5, 1)]
    names += ["20_0.jpg", "20_1.jpg", "30_0.jpg", "30_1.jpg"]
    for seed, name in enumerate(names):
        write_noise(tmp_path / name, seed)
    images = [ReidImage(name, int(name.split("_")[0]), int(name[-5])) for name in names]
    return ReidSplits.from_images(
        "x", tmp_path, train=images[:5], query=[images[5], images[7]], gallery=images[6::2]
    )


def test_without_bad_images_the_data_set_stays_the_same(splits: ReidSplits) -> None:
    assert skip_bad_images(splits, workers=0) == (splits, [])


def test_bad_images_are_left_out_of_every_split_and_told(
    splits: ReidSplits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("9_1.jpg", "30_0.jpg", "20_1.jpg"):
        truncate(tmp_path / name)
    left, skipped = skip_bad_images(splits, workers=2)
    assert [(split, path) for split, path, _ in skipped] == [
        ("train", "9_1.jpg"),
        ("query", "30_0.jpg"),
        ("gallery", "20_1.jpg"),
    ]
    assert all("truncated" in reason for *_, reason in skipped)
    assert [image.path for image in left.train.images] == [
        "3_0.jpg",
        "3_1.jpg",
        "5_0.jpg",
        "9_0.jpg",
    ]
    assert left.query.pids.tolist() == [20]
    assert left.gallery.pids.tolist() == [30]
    assert left.fingerprint != splits.fingerprint
    assert len(splits.train) == 5
    assert not caplog.messages


def test_labels_stay_where_an_identity_loses_its_last_image(
    splits: ReidSplits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "5_0.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        left, _ = skip_bad_images(splits, workers=0)
    assert left.classes == splits.classes == [3, 5, 9]
    assert left.train.pids.tolist() == [3, 3, 9, 9]
    assert left.train.labels.tolist() == [0, 0, 2, 2]
    assert "1 train ids have no readable image (such as 5)" in caplog.text


def test_a_split_without_any_readable_image_is_an_error(splits: ReidSplits, tmp_path: Path) -> None:
    for name in ("20_0.jpg", "30_0.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 2 images of query .*20_0\.jpg: the file is"):
        skip_bad_images(splits, workers=0)


def test_a_split_that_was_empty_before_is_none(splits: ReidSplits) -> None:
    tested = ReidSplits(
        "x", splits.root, splits.train.without(range(5)), splits.query, splits.gallery
    )
    assert skip_bad_images(tested, workers=0)[0] is tested
