import json
import logging

import pytest
from noise_image import write_noise

from rga_timm.data import create_dataset
from rga_timm.data.partition import random_partition

PEOPLE = range(1, 9)


@pytest.fixture
def prid450s_root(tmp_path):
    """The archive's own folder: masks lie beside the images."""
    root = tmp_path / "prid_450s"
    for seed, camera in enumerate(("cam_a", "cam_b")):
        for pid in PEOPLE:
            write_noise(root / camera / f"img_{pid:03d}.png", seed=10 * pid + seed)
            (root / camera / f"man_{pid:03d}.png").write_bytes(b"a mask")
    (root / "readme.txt").write_text("PRID 450S")
    return root


def test_half_of_the_people_are_trained_on_and_camera_a_asks_camera_b(prid450s_root):
    splits = create_dataset("prid450s:split=2", prid450s_root)
    train = sorted(random_partition(PEOPLE, 4, 2))
    test = [pid for pid in PEOPLE if pid not in train]
    assert [image[:3] for image in splits.train.images] == [
        (f"{camera}/img_{pid:03d}.png", pid, camid)
        for camid, camera in enumerate(("cam_a", "cam_b"))
        for pid in train
    ]
    assert [image[:3] for image in splits.query.images] == [
        (f"cam_a/img_{pid:03d}.png", pid, 0) for pid in test
    ]
    assert [image[:3] for image in splits.gallery.images] == [
        (f"cam_b/img_{pid:03d}.png", pid, 1) for pid in test
    ]


def test_the_root_may_be_a_folder_above(prid450s_root, tmp_path):
    (tmp_path / "PRID450s").mkdir()
    moved = prid450s_root.rename(tmp_path / "PRID450s" / "PRID_450s")
    assert create_dataset("prid450s", tmp_path).root == moved


def test_torchreids_partitions_with_both_cameras_on_both_sides_are_read(prid450s_root):
    def items(pids):
        return [
            [f"/data/prid450s/cam_{camera}/img_{pid:03d}.png", pid, camid]
            for camid, camera in enumerate("ab")
            for pid in pids
        ]

    entries = []
    for number in range(10):
        train = [1 + (number + step) % 8 for step in (0, 2, 3)]
        test = items([pid for pid in PEOPLE if pid not in train])
        entries.append({"train": items(train), "query": test, "gallery": test})
    (prid450s_root / "splits.json").write_text(json.dumps(entries))
    splits = create_dataset("prid450s:partitions=splits.json,split=1", prid450s_root)
    assert splits.classes == [2, 4, 5]
    assert splits.query.pids.tolist() == [1, 3, 6, 7, 8]
    assert set(splits.query.camids) == {0}


def test_a_person_who_is_missing_in_a_camera_is_an_error(prid450s_root):
    (prid450s_root / "cam_a" / "img_003.png").unlink()
    with pytest.raises(ValueError, match=r"cam_a lacks 1 people, such as 3, whom PRID 450S has"):
        create_dataset("prid450s", prid450s_root)


@pytest.mark.parametrize("name", ["img_001_mask.png", "img_a.png", "img_001.mat"])
def test_an_image_of_another_name_is_an_error(prid450s_root, name):
    (prid450s_root / "cam_a" / name).touch()
    with pytest.raises(ValueError, match=rf"{name} is not named as in PRID 450S.*img_001\.png"):
        create_dataset("prid450s", prid450s_root)


def test_the_published_counts_agree_with_the_set_as_published(tmp_path, caplog):
    for camera in ("cam_a", "cam_b"):
        (tmp_path / camera).mkdir()
        for pid in range(1, 451):
            (tmp_path / camera / f"img_{pid:03d}.png").touch()
    with caplog.at_level(logging.WARNING):
        create_dataset("prid450s", tmp_path)
        assert not caplog.messages
        for camera in ("cam_a", "cam_b"):
            (tmp_path / camera / "img_450.png").unlink()
        create_dataset("prid450s", tmp_path)
    assert "448 images, 224 ids" in caplog.messages[0]
