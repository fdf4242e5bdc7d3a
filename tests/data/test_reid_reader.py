import hashlib
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from noise_image import write_noise
from PIL import Image

from rga_timm.data import ReidDataset, ReidImage, ReidReader, ReidSplits

IMAGES = [ReidImage("a/30.png", 30, 2), ReidImage("a/4.png", 4, 1), ReidImage("b/30.png", 30, 1)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, image in enumerate(IMAGES):
        write_noise(tmp_path / image.path, seed=seed)
    return tmp_path


def splits(train: list[ReidImage], root: Path = Path("unused")) -> ReidSplits:
    return ReidSplits.from_images("x", root, train=train, query=IMAGES[:1], gallery=IMAGES[1:])


def test_a_test_reader_gives_the_pid_and_a_train_reader_the_label(root):
    _, target = ReidReader(root, IMAGES)[0]
    assert target.dtype == torch.int64
    assert target.tolist() == [30, 2]
    _, target = ReidReader(root, IMAGES, {30: 1, 4: 0})[0]
    assert target.tolist() == [1, 2]


def test_labels_are_what_the_items_hold(root):
    for label_of in (None, {30: 1, 4: 0}):
        reader = ReidReader(root, IMAGES, label_of)
        targets = [target.tolist() for _, target in ReidDataset(reader)]
        assert reader.labels.tolist() == [label for label, _ in targets]
        assert reader.camids.tolist() == [camid for _, camid in targets]
        assert reader.labels.dtype == reader.pids.dtype == reader.camids.dtype == np.int64


def test_timm_data_sets_take_the_reader(root):
    image, target = timm.data.ImageDataset(str(root), reader=ReidReader(root, IMAGES))[2]
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(root / "b/30.png")))
    assert target.tolist() == [30, 1]


def test_filenames_come_relative_absolute_and_bare(root):
    reader = ReidReader(root, IMAGES)
    assert reader.filename(2) == "b/30.png"
    assert reader.filename(2, basename=True) == "30.png"
    assert reader.filename(2, absolute=True) == str(root / "b/30.png")
    assert reader.filenames() == [image.path for image in IMAGES]


def test_grey_images_and_images_with_alpha_become_rgb(root):
    for mode in ("L", "RGBA", "P"):
        Image.new(mode, (4, 8)).save(root / "a/30.png")
        assert ReidDataset(ReidReader(root, IMAGES))[0][0].mode == "RGB"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("damage", [truncate, lambda p: p.write_bytes(b"text"), Path.unlink])
def test_an_unreadable_image_is_an_error_that_names_it(root, damage):
    damage(root / "a/4.png")
    dataset = ReidDataset(ReidReader(root, IMAGES))
    with pytest.raises(RuntimeError, match=r"a/4\.png"):
        dataset[1]
    assert dataset[0][1].tolist() == [30, 2]


def test_labels_follow_the_sorted_pids_whatever_the_order_of_the_images():
    for images in (IMAGES, IMAGES[::-1]):
        made = splits(images)
        assert made.classes == [4, 30]
        assert [made.classes[label] for label in made.train.labels] == made.train.pids.tolist()


def test_describe_counts_images_ids_and_cameras_in_plain_types():
    description = splits(IMAGES).describe()
    assert description["train"] == {"images": 3, "ids": 2, "cameras": 2}
    assert description["query"] == {"images": 1, "ids": 1, "cameras": 1}
    assert {type(count) for count in description["train"].values()} == {int}


def test_the_fingerprint_is_the_hash_of_the_sorted_lines():
    lines = "gallery a/4.png 4 1\ngallery b/30.png 30 1\nquery a/30.png 30 2\ntrain a/4.png 4 1\n"
    assert splits(IMAGES[1:2]).fingerprint == hashlib.sha256(lines.encode()).hexdigest()


def test_the_fingerprint_ignores_order_and_place_and_notices_everything_else():
    original = splits(IMAGES).fingerprint
    assert splits(IMAGES[::-1], Path("elsewhere")).fingerprint == original
    first, *rest = IMAGES
    changed = [first._replace(path="z"), first._replace(pid=5), first._replace(camid=5)]
    others = {splits([image, *rest]).fingerprint for image in changed}
    assert len({original, *others, splits(rest).fingerprint}) == 5
