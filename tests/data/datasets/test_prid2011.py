import json
import logging

import pytest

from rga_timm.data import create_dataset
from rga_timm.data.partition import random_partition


@pytest.fixture
def prid2011_root(tmp_path):
    """The archive's own folder, with all its names; the files are empty."""
    root = tmp_path / "prid_2011"
    for camera, last in (("cam_a", 385), ("cam_b", 749)):
        folder = root / "single_shot" / camera
        folder.mkdir(parents=True)
        (root / "multi_shot" / camera / "person_0001").mkdir(parents=True)
        for pid in range(1, last + 1):
            (folder / f"person_{pid:04d}.png").touch()
    (root / "readme.txt").write_text("PRID 2011")
    return root


def test_half_of_the_200_are_trained_on_and_the_rest_of_camera_b_distracts(prid2011_root, caplog):
    with caplog.at_level(logging.WARNING):
        splits = create_dataset("prid2011:split=7", prid2011_root)
    assert not caplog.messages  # the published counts agree
    train = random_partition(range(1, 201), 100, 7)
    test = set(range(1, 201)) - train
    assert splits.classes == sorted(train)
    assert {image[:3] for image in splits.train.images} == {
        (f"single_shot/cam_{camera}/person_{pid:04d}.png", pid, camid)
        for camid, camera in enumerate("ab")
        for pid in train
    }
    assert [image[:3] for image in splits.query.images] == [
        (f"single_shot/cam_a/person_{pid:04d}.png", pid, 0) for pid in sorted(test)
    ]
    assert [image[:3] for image in splits.gallery.images] == [
        (f"single_shot/cam_b/person_{pid:04d}.png", pid, 1)
        for pid in sorted(test | set(range(201, 750)))
    ]


def test_the_whole_set_without_training_is_the_protocol_of_its_page(prid2011_root, caplog):
    with caplog.at_level(logging.WARNING):
        splits = create_dataset("prid2011:protocol=whole", prid2011_root)
        assert not caplog.messages
        assert len(splits.train) == 0
        assert splits.query.pids.tolist() == list(range(1, 201))
        assert splits.gallery.pids.tolist() == list(range(1, 750))
        (prid2011_root / "single_shot" / "cam_b" / "person_0749.png").unlink()
        create_dataset("prid2011:protocol=whole", prid2011_root)
    assert "748 images, 748 ids" in caplog.messages[0]


@pytest.mark.parametrize("option", ["split=1", "partitions=splits_single_shot.json"])
def test_the_whole_set_has_no_partitions(prid2011_root, option):
    with pytest.raises(ValueError, match="protocol=whole PRID 2011 has no partitions"):
        create_dataset(f"prid2011:protocol=whole,{option}", prid2011_root)


def test_torchreid_has_a_folder_around_it(prid2011_root, tmp_path):
    expected = create_dataset("prid2011", prid2011_root)
    (tmp_path / "prid2011").mkdir()
    moved = prid2011_root.rename(tmp_path / "prid2011" / "prid_2011")
    for root in (tmp_path, tmp_path / "prid2011", moved / "single_shot"):
        found = create_dataset("prid2011", root)
        assert found.root == moved
        assert found.fingerprint == expected.fingerprint


def torchreid_splits():
    """As torchreid's ``splits_single_shot.json``: sorted pids."""
    halves = [
        sorted((pid * 7 + number * 11) % 200 + 1 for pid in range(100)) for number in range(10)
    ]
    return [
        {"train": half, "test": [pid for pid in range(1, 201) if pid not in half]}
        for half in halves
    ]


def test_torchreids_partitions_are_taken_if_they_are_asked_for(prid2011_root):
    entries = torchreid_splits()
    (prid2011_root.parent / "splits_single_shot.json").write_text(json.dumps(entries))
    spec = "prid2011:partitions=splits_single_shot.json,split=4"
    splits = create_dataset(spec, prid2011_root)
    assert splits.classes == entries[4]["train"]
    assert splits.query.pids.tolist() == entries[4]["test"]
    assert splits.gallery.pids.tolist() == entries[4]["test"] + list(range(201, 750))
    assert create_dataset("prid2011:split=4", prid2011_root).classes == sorted(
        random_partition(range(1, 201), 100, 4)
    )


def test_a_partition_of_people_whom_only_one_camera_saw_is_an_error(prid2011_root):
    entries = torchreid_splits()
    entries[2]["test"][0] = 201
    path = prid2011_root / "splits.json"
    path.write_text(json.dumps(entries))
    message = r"splits\.json, partition 2, test names 1 .*not in both cameras, such as 201"
    with pytest.raises(ValueError, match=message):
        create_dataset("prid2011", prid2011_root, partitions="splits.json")


@pytest.mark.parametrize("camera", ["cam_a", "cam_b"])
def test_one_of_the_200_missing_is_an_error(prid2011_root, camera):
    (prid2011_root / "single_shot" / camera / "person_0200.png").unlink()
    with pytest.raises(ValueError, match=rf"{camera} lacks 1 people, such as 200, whom PRID 2011"):
        create_dataset("prid2011", prid2011_root)


@pytest.mark.parametrize("name", ["person_0001.txt", "0001.png", "img_001.png"])
def test_a_name_of_another_form_is_an_error(prid2011_root, name):
    (prid2011_root / "single_shot" / "cam_b" / name).touch()
    with pytest.raises(ValueError, match=rf"{name} is not named as in PRID 2011.*person_0001\.png"):
        create_dataset("prid2011", prid2011_root)


def test_an_empty_camera_is_an_error(prid2011_root):
    for file in (prid2011_root / "single_shot" / "cam_b").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="cam_b holds no images of PRID 2011"):
        create_dataset("prid2011", prid2011_root)
