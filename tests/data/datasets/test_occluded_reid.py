import logging

import pytest
from noise_image import write_noise

from rga_timm.data import ReidDataset, create_dataset


@pytest.fixture
def occluded_root(tmp_path):
    """The archive's own folder: a folder for each person, TIFF."""
    root = tmp_path / "Occluded_REID"
    for folder, seed in (("occluded_body_images", 0), ("whole_body_images", 50)):
        for pid in (1, 2, 10):
            for number in (1, 2):
                name = f"{folder}/{pid:03d}/{pid:03d}_{number:02d}.tif"
                write_noise(root / name, seed=seed + 3 * pid + number)
        (root / folder / "001" / "Thumbs.db").write_bytes(b"not an image")
    return root


def test_the_occluded_ask_and_the_whole_answer(occluded_root):
    splits = create_dataset("occluded_reid", occluded_root)
    assert len(splits.train) == 0
    assert [image[:3] for image in splits.query.images] == [
        (f"occluded_body_images/{pid:03d}/{pid:03d}_{number:02d}.tif", pid, 0)
        for pid in (1, 2, 10)
        for number in (1, 2)
    ]
    assert [image[:3] for image in splits.gallery.images] == [
        (f"whole_body_images/{pid:03d}/{pid:03d}_{number:02d}.tif", pid, 1)
        for pid in (1, 2, 10)
        for number in (1, 2)
    ]
    assert not splits.has_cameras
    assert "cameras" not in splits.describe()["query"]
    image, target = ReidDataset(splits.query)[5]
    assert image.size == (16, 32)
    assert target.tolist() == [10, 0]


def test_other_formats_are_read(occluded_root):
    write_noise(occluded_root / "whole_body_images" / "002" / "002_03.jpg")
    paths = [image.path for image in create_dataset("occluded_reid", occluded_root).gallery.images]
    assert "whole_body_images/002/002_03.jpg" in paths


def test_the_layout_of_fast_reid_is_read(tmp_path):
    for folder in ("query", "gallery"):
        for pid in (3, 12):
            write_noise(tmp_path / "OccludedREID" / folder / f"{pid:03d}_01.jpg", seed=pid)
    for root in (tmp_path, tmp_path / "OccludedREID"):
        splits = create_dataset("occluded_reid", root)
        assert splits.root == tmp_path
        assert splits.query.images[1][:3] == ("OccludedREID/query/012_01.jpg", 12, 0)
        assert splits.gallery.images[0][:3] == ("OccludedREID/gallery/003_01.jpg", 3, 1)


def test_partial_reid_beside_it_is_not_taken_for_it(occluded_root, tmp_path):
    (tmp_path / "datasets").mkdir()
    moved = occluded_root.rename(tmp_path / "datasets" / "Occluded_REID")
    for folder in ("occluded_body_images", "partial_body_images", "whole_body_images"):
        write_noise(tmp_path / "Partial-REID_Dataset" / folder / "001_001.jpg")
    assert create_dataset("occluded_reid", tmp_path).root == moved


def test_an_image_in_the_folder_of_another_person_is_an_error(occluded_root):
    write_noise(occluded_root / "whole_body_images" / "002" / "010_03.tif")
    with pytest.raises(ValueError, match=r"002/010_03\.tif is an image of person 10 in the folder"):
        create_dataset("occluded_reid", occluded_root)


def test_a_person_without_an_answer_is_an_error(occluded_root):
    for file in (occluded_root / "whole_body_images" / "002").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"whole_body_images lacks 1 people of .* such as 2\."):
        create_dataset("occluded_reid", occluded_root)


@pytest.mark.parametrize("name", ["001.tif", "001_01.mat", "0001_c1s1_000451_03.jpg"])
def test_a_name_of_another_form_is_an_error(occluded_root, name):
    (occluded_root / "occluded_body_images" / "001" / name).touch()
    with pytest.raises(ValueError, match=rf"{name} is not named as in Occluded-REID.*001_01\.tif"):
        create_dataset("occluded_reid", occluded_root)


def test_the_published_counts_agree_with_the_set_as_published(tmp_path, caplog):
    for folder in ("occluded_body_images", "whole_body_images"):
        for pid in range(1, 201):
            (tmp_path / folder / f"{pid:03d}").mkdir(parents=True)
            for number in range(1, 6):
                (tmp_path / folder / f"{pid:03d}" / f"{pid:03d}_{number:02d}.tif").touch()
    with caplog.at_level(logging.WARNING):
        create_dataset("occluded_reid", tmp_path)
        assert not caplog.messages
        (tmp_path / "occluded_body_images" / "200" / "200_05.tif").unlink()
        create_dataset("occluded_reid", tmp_path)
    (message,) = caplog.messages
    assert "query of" in message
    assert "999 images, 200 ids; occluded_reid was published with 1000 images" in message
