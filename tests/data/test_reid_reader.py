import io
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from noise_image import write_noise
from PIL import Image

from rga_timm.data import ReidDataset, ReidImage, ReidReader, UnreadableImageError

IMAGES = [ReidImage("a/30.png", 30, 2), ReidImage("a/4.png", 4, 1), ReidImage("b/30.png", 30, 1)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, image in enumerate(IMAGES):
        write_noise(tmp_path / image.path, seed=seed)
    return tmp_path


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
    with pytest.raises(UnreadableImageError, match=r"a/4\.png"):
        dataset[1]
    assert dataset[0][1].tolist() == [30, 2]


def test_images_of_a_tracklet_are_tested_with_its_number_and_trained_on_without(root):
    images = [image._replace(tracklet=7) for image in IMAGES]
    reader = ReidReader(root, images)
    assert reader.has_tracklets
    assert reader[1][1].tolist() == [4, 1, 7]
    assert ReidReader(root, images, {30: 1, 4: 0})[1][1].tolist() == [0, 1]
    assert not ReidReader(root, IMAGES).has_tracklets


def test_images_may_come_from_elsewhere_than_files():
    def opener(path: str) -> io.BytesIO:
        file = io.BytesIO()
        Image.new("RGB", (4, 8), color=(len(path), 0, 0)).save(file, "png")
        file.seek(0)
        return file

    image, target = ReidDataset(ReidReader("nowhere", IMAGES, opener=opener))[1]
    assert image.getpixel((0, 0)) == (len("a/4.png"), 0, 0)
    assert target.tolist() == [4, 1]


def test_a_box_is_cut_out(root):
    whole = np.asarray(Image.open(root / "a/4.png"))
    images = [IMAGES[1]._replace(box=(2, 3, 10, 20))]
    image, _ = ReidDataset(ReidReader(root, images))[0]
    assert np.array_equal(np.asarray(image), whole[3:20, 2:10])


def test_of_a_box_that_leaves_the_image_the_rest_is_cut_out(root):
    whole = np.asarray(Image.open(root / "a/4.png"))
    images = [IMAGES[1]._replace(box=box) for box in ((-5, -1, 4, 8), (10, 30, 99, 99))]
    first, second = (np.asarray(image) for image, _ in ReidDataset(ReidReader(root, images)))
    assert np.array_equal(first, whole[:8, :4])
    assert np.array_equal(second, whole[30:, 10:])


@pytest.mark.parametrize("box", [(-4, 0, 0, 4), (16, 0, 17, 4), (0, 32, 4, 33), (4, 0, 4, 8)])
def test_a_box_with_nothing_of_the_image_is_an_error(root, box):
    dataset = ReidDataset(ReidReader(root, [IMAGES[1]._replace(box=box)]))
    with pytest.raises(UnreadableImageError, match=r"a/4\.png: the box .* outside the 16x32 "):
        dataset[0]


def test_images_can_be_left_out_and_labels_stay(root):
    reader = ReidReader(root, IMAGES, {30: 1, 4: 0}).without([0])
    assert [image.path for image in reader.images] == ["a/4.png", "b/30.png"]
    assert reader.labels.tolist() == [0, 1]
    assert ReidReader(root, IMAGES, {30: 1, 4: 0}).without([1]).labels.tolist() == [1, 1]
