import logging
import shutil

import pytest
from noise_image import write_noise

from rga_timm.data import create_dataset
from rga_timm.data.datasets.market1501 import read_market1501


def test_every_field_of_the_names_is_read(market_root):
    splits = create_dataset("market1501", market_root)
    assert splits.root == market_root
    assert [image[:3] for image in splits.train.images] == [
        ("bounding_box_train/0007_c1s1_000451_03.jpg", 7, 1),
        ("bounding_box_train/0007_c2s1_000551_01.jpg", 7, 2),
        ("bounding_box_train/1488_c3s3_065527_02.jpg.jpg", 1488, 3),
    ]
    assert splits.classes == [7, 1488]
    assert splits.train.labels.tolist() == [0, 0, 1]
    assert splits.query.pids.tolist() == [2, 11]
    assert splits.query.camids.tolist() == [1, 6]


def test_junk_is_dropped_and_distractors_stay_in_the_gallery(market_root):
    assert create_dataset("market1501", market_root).gallery.pids.tolist() == [0, 2, 11]


def test_the_root_may_be_the_folder_above(market_root):
    expected = create_dataset("market1501", market_root)
    above = market_root.parent
    (above / "something else").mkdir()
    assert create_dataset("market1501", above).root == market_root
    renamed = market_root.rename(above / "mine")
    found = create_dataset("market1501", str(above))
    assert found.root == renamed
    assert found.fingerprint == expected.fingerprint


def test_the_usual_name_wins_over_others_and_otherwise_one_has_to_choose(market_root):
    above = market_root.parent
    shutil.copytree(market_root, above / "mine")
    assert create_dataset("market1501", above).root == market_root
    market_root.rename(above / "yours")
    with pytest.raises(FileNotFoundError, match=r"could be market1501 \(mine, yours\)"):
        create_dataset("market1501", above)


def test_a_missing_folder_is_told_with_what_was_expected_and_found(market_root):
    (market_root / "bounding_box_train").rename(market_root / "train")
    expectation = (
        r"holds bounding_box_test/, query/, train/\. As the archive's own layout it lacks "
        r"bounding_box_train\. Expected"
    )
    with pytest.raises(FileNotFoundError, match=expectation):
        create_dataset("market1501", market_root)


def test_a_folder_without_people_is_an_error(market_root):
    for file in (market_root / "query").iterdir():
        file.unlink()
    (market_root / "query" / "Thumbs.db").touch()
    with pytest.raises(FileNotFoundError, match=r"query holds no images.*found Thumbs\.db"):
        create_dataset("market1501", market_root)


@pytest.mark.parametrize(
    "name",
    [
        "0001_c2_f0046182.jpg",  # DukeMTMC-reID
        "0000_000_01_0303morning_0008_0.jpg",  # MSMT17
        "0001_c1s1_000451.jpg",
        "-2_c1s1_000451_03.jpg",
        "0001_c1s1_000451_03.txt",
        "notes.md",
    ],
)
def test_a_name_of_another_data_set_is_an_error_that_shows_both(market_root, name):
    write_noise(market_root / "query" / "0001_c1s1_000451_03.jpg")
    (market_root / "query" / "0001_c1s1_000451_03.jpg").rename(market_root / "query" / name)
    with pytest.raises(ValueError, match=rf"{name} is not named.*0002_c1s1_000451_03\.jpg"):
        create_dataset("market1501", market_root)


def test_counts_other_than_the_published_ones_are_warned_of_for_market1501_only(
    market_root, caplog
):
    with caplog.at_level(logging.WARNING):
        read_market1501(market_root, "mine").warn_of_surprises()
        assert not caplog.messages
        create_dataset("market1501", market_root)
    assert [message.split()[0] for message in caplog.messages] == ["train", "query", "gallery"]
    assert "3 images, 2 ids, 3 cameras" in caplog.messages[0]
    assert "published with 12936 images, 751 ids, 6 cameras" in caplog.messages[0]
