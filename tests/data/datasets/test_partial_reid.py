import logging

import pytest
from noise_image import write_noise

from rga_timm.data import create_dataset

FOLDERS = ("occluded_body_images", "partial_body_images", "whole_body_images")


@pytest.fixture
def partial_root(tmp_path):
    """The archive's own folder: all images of a kind in one folder."""
    root = tmp_path / "Partial-REID_Dataset"
    for seed, folder in enumerate(FOLDERS):
        for pid in (1, 2, 60):
            for number in (1, 2):
                name = f"{folder}/{pid:03d}_{number:03d}.jpg"
                write_noise(root / name, seed=100 * seed + pid + number)
    return root


@pytest.mark.parametrize("query", ["partial", "occluded"])
def test_partial_or_occluded_ones_ask_and_whole_ones_answer(partial_root, query):
    splits = create_dataset(f"partial_reid:query={query}", partial_root)
    assert len(splits.train) == 0
    for folder, camid, reader in (
        (f"{query}_body_images", 0, splits.query),
        ("whole_body_images", 1, splits.gallery),
    ):
        assert [image[:3] for image in reader.images] == [
            (f"{folder}/{pid:03d}_{number:03d}.jpg", pid, camid)
            for pid in (1, 2, 60)
            for number in (1, 2)
        ]
    assert not splits.has_cameras


def test_partial_ones_ask_unless_told_otherwise(partial_root):
    expected = create_dataset("partial_reid:query=partial", partial_root).fingerprint
    assert create_dataset("partial_reid", partial_root).fingerprint == expected


def test_fast_reids_folder_without_occluded_ones_is_read(partial_root, tmp_path):
    for file in (partial_root / "occluded_body_images").iterdir():
        file.unlink()
    (partial_root / "occluded_body_images").rmdir()
    moved = partial_root.rename(tmp_path / "Partial_REID")
    assert create_dataset("partial_reid", tmp_path).root == moved
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*occluded_body_images"):
        create_dataset("partial_reid:query=occluded", tmp_path)


def test_an_empty_folder_is_an_error(partial_root):
    for file in (partial_root / "partial_body_images").iterdir():
        file.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"partial_body_images holds no images of Partial-REID\. Expected"
    ):
        create_dataset("partial_reid", partial_root)


def test_a_person_without_an_answer_is_an_error(partial_root):
    for number in (1, 2):
        (partial_root / "whole_body_images" / f"060_00{number}.jpg").unlink()
    with pytest.raises(ValueError, match=r"whole_body_images lacks 1 people of .* such as 60\."):
        create_dataset("partial_reid", partial_root)


@pytest.mark.parametrize("name", ["001.jpg", "001_001.json", "p001_001.jpg"])
def test_a_name_of_another_form_is_an_error(partial_root, name):
    (partial_root / "whole_body_images" / name).touch()
    with pytest.raises(ValueError, match=rf"{name} is not named as in Partial-REID.*001_001\.jpg"):
        create_dataset("partial_reid", partial_root)


def test_the_published_counts_agree_with_the_set_as_published(tmp_path, caplog):
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        for pid in range(1, 61):
            for number in range(1, 6):
                (tmp_path / folder / f"{pid:03d}_{number:03d}.jpg").touch()
    with caplog.at_level(logging.WARNING):
        create_dataset("partial_reid", tmp_path)
        assert not caplog.messages
        # Of occluded ones no count is known for sure.
        (tmp_path / "occluded_body_images" / "060_005.jpg").unlink()
        create_dataset("partial_reid:query=occluded", tmp_path)
        assert not caplog.messages
        (tmp_path / "partial_body_images" / "060_005.jpg").unlink()
        create_dataset("partial_reid", tmp_path)
    (message,) = caplog.messages
    assert "299 images, 60 ids; partial_reid was published with 300 images" in message
