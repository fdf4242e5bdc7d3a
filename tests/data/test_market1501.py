import logging
import shutil

import pytest
from noise_image import write_noise

from rga_timm.data import create_dataset
from rga_timm.data.market1501 import read_market1501


def test_every_field_of_the_names_is_read(market_root):
    splits = create_dataset("market1501", market_root)
    assert splits.root == market_root
    assert [tuple(image) for image in splits.train.images] == [
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
    with pytest.raises(FileNotFoundError, match=r"several data sets \(mine, yours\)"):
        create_dataset("market1501", above)


def test_a_missing_folder_is_told_with_what_was_expected_and_found(market_root):
    (market_root / "bounding_box_train").rename(market_root / "train")
    expectation = r"it holds bounding_box_test/, query/, train/\. Expected .*bounding_box_train"
    with pytest.raises(FileNotFoundError, match=expectation):
        create_dataset("market1501", market_root)


def test_a_root_that_is_empty_or_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="the folder is empty"):
        create_dataset("market1501", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere\. Expected"):
        create_dataset("market1501", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no default root: .*bounding_box_train"):
        create_dataset("market1501")


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
        read_market1501(market_root, "mine")
        assert not caplog.messages
        create_dataset("market1501", market_root)
    assert [message.split()[0] for message in caplog.messages] == ["train", "query", "gallery"]
    assert "3 images of 2 ids" in caplog.messages[0]
    assert "12936 of 751" in caplog.messages[0]


def test_people_in_both_train_and_test_are_warned_of_but_distractors_are_not(market_root, caplog):
    write_noise(market_root / "bounding_box_train" / "0000_c1s1_000001_00.jpg")
    read_market1501(market_root, "mine")
    assert not caplog.messages
    write_noise(market_root / "bounding_box_train" / "0011_c1s1_000001_00.jpg")
    read_market1501(market_root, "mine")
    assert len(caplog.messages) == 1
    assert "1 of 4 train ids are in query or gallery too (such as 11)" in caplog.messages[0]
