import json
import logging
import shutil

import pytest
from noise_image import write_noise

from rga_timm.data import ReidDataset, create_dataset
from rga_timm.data.partition import random_partition

PEOPLE = (0, 1, 5, 46, 90, 91, 872)  # VIPeR's numbers have gaps; an odd number of people


@pytest.fixture
def viper_root(tmp_path):
    """The archive's own folder, with what operating systems leave there."""
    root = tmp_path / "VIPeR"
    for number, pid in enumerate(PEOPLE):
        write_noise(root / "cam_a" / f"{pid:03d}_45.bmp", seed=number)
        write_noise(root / "cam_b" / f"{pid:03d}_{(90, 135)[number % 2]}.bmp", seed=100 + number)
    (root / "README.txt").write_text("VIPeR")
    (root / "cam_a" / "Thumbs.db").write_bytes(b"not an image")
    return root


def test_half_of_the_people_are_trained_on_and_camera_a_asks_camera_b(viper_root):
    splits = create_dataset("viper", viper_root)
    train = sorted(random_partition(PEOPLE, 3, 0))
    test = [pid for pid in PEOPLE if pid not in train]
    assert splits.train.pids.tolist() == train + train
    assert splits.train.camids.tolist() == [0] * 3 + [1] * 3
    assert splits.query.pids.tolist() == splits.gallery.pids.tolist() == test
    assert [image.path for image in splits.query.images] == [f"cam_a/{p:03d}_45.bmp" for p in test]
    assert {image.path.split("/")[0] for image in splits.gallery.images} == {"cam_b"}
    assert set(splits.query.camids) == {0}
    assert set(splits.gallery.camids) == {1}
    assert not splits.single_gallery_shot


def test_images_are_those_of_the_folder(viper_root):
    splits = create_dataset("viper", viper_root)
    image, target = ReidDataset(splits.gallery)[0]
    pid = splits.gallery.pids[0]
    assert target.tolist() == [pid, 1]
    assert image.size == (16, 32)
    assert len(list((viper_root / "cam_b").glob(f"{pid:03d}_*.bmp"))) == 1


def test_there_are_ten_partitions_of_the_same_people(viper_root):
    chosen = {
        frozenset(create_dataset(f"viper:split={split}", viper_root).classes) for split in range(10)
    }
    assert len(chosen) > 5  # of 35 possible ones
    with pytest.raises(ValueError, match="split 10 is not one of the 10 partitions of VIPeR"):
        create_dataset("viper:split=10", viper_root)


def test_torchreid_has_a_folder_around_it(viper_root, tmp_path):
    expected = create_dataset("viper", viper_root)
    (tmp_path / "viper").mkdir()
    viper_root.rename(tmp_path / "viper" / "VIPeR")
    for root in (tmp_path, tmp_path / "viper", tmp_path / "viper" / "VIPeR" / "cam_a"):
        found = create_dataset("viper", root)
        assert found.root == tmp_path / "viper" / "VIPeR"
        assert found.fingerprint == expected.fingerprint


def test_it_is_told_from_other_sets_with_two_cameras(viper_root, tmp_path):
    deeper = tmp_path / "data" / "viper"
    deeper.mkdir(parents=True)
    shutil.move(viper_root, deeper)
    write_noise(tmp_path / "data" / "prid_450s" / "cam_a" / "img_001.png")
    write_noise(tmp_path / "data" / "prid_450s" / "cam_b" / "img_001.png")
    assert create_dataset("viper", tmp_path / "data").root == deeper / "VIPeR"


def torchreid_splits():
    """Ten partitions in two directions each, as torchreid's ``splits.json`` has them."""
    entries = []
    for number in range(10):
        train = [PEOPLE[number % 7], PEOPLE[(number + 2) % 7]]
        test = [pid for pid in PEOPLE if pid not in train]
        a, b = (
            {
                pid: f"/home/me/reid-data/viper/VIPeR/cam_{camera}/{pid:03d}_{angle(pid)}.bmp"
                for pid in PEOPLE
            }
            for camera, angle in (
                ("a", lambda pid: 45),
                ("b", lambda pid: (90, 135)[PEOPLE.index(pid) % 2]),
            )
        )
        train_items = [
            [camera[pid], label, camid]
            for label, pid in enumerate(train)
            for camid, camera in enumerate((a, b))
        ]
        asked = [[a[pid], label, 0] for label, pid in enumerate(test)]
        sought = [[b[pid], label, 1] for label, pid in enumerate(test)]
        for query, gallery in ((asked, sought), (sought, asked)):
            entries.append(
                {
                    "train": train_items,
                    "query": query,
                    "gallery": gallery,
                    "num_train_pids": len(train),
                    "num_query_pids": len(test),
                    "num_gallery_pids": len(test),
                }
            )
    return entries


def test_torchreids_partitions_are_taken_if_they_are_asked_for(viper_root):
    path = viper_root.parent / "splits.json"
    path.write_text(json.dumps(torchreid_splits()))
    splits = create_dataset("viper:partitions=splits.json,split=3", viper_root)
    assert splits.classes == [46, 91]
    assert splits.query.pids.tolist() == splits.gallery.pids.tolist() == [0, 1, 5, 90, 872]
    assert set(splits.query.camids) == {0}
    assert splits.name == "viper:partitions=splits.json,split=3"
    assert create_dataset("viper", viper_root).classes == sorted(random_partition(PEOPLE, 3, 0))


def test_a_partition_file_with_an_image_that_is_not_there_is_an_error(viper_root):
    entries = torchreid_splits()
    entries[4]["gallery"][0][0] = "/home/me/VIPeR/cam_b/333_90.bmp"
    path = viper_root / "splits.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"splits\.json, partition 4, gallery names 1 .*333_90"):
        create_dataset("viper", viper_root, partitions=str(path))


def test_a_person_who_is_missing_in_a_camera_is_an_error(viper_root):
    next((viper_root / "cam_b").glob("046_*")).unlink()
    with pytest.raises(ValueError, match=r"cam_b lacks 1 people, such as 46, whom VIPeR has in"):
        create_dataset("viper", viper_root)
    (viper_root / "cam_a" / "046_45.bmp").unlink()
    (viper_root / "cam_a" / "000_45.bmp").unlink()
    with pytest.raises(ValueError, match=r"cam_a lacks 1 people, such as 0,"):
        create_dataset("viper", viper_root)


def test_two_images_of_one_person_in_a_camera_are_an_error(viper_root):
    write_noise(viper_root / "cam_a" / "005_90.bmp")
    with pytest.raises(
        ValueError, match=r"two images of person 5, cam_a/005_45\.bmp and cam_a/005_90\.bmp"
    ):
        create_dataset("viper", viper_root)


@pytest.mark.parametrize(
    "name", ["0001001.png", "001_45.txt", "0002_c1s1_000451_03.jpg", "a_1.bmp"]
)
def test_a_name_of_another_form_is_an_error(viper_root, name):
    (viper_root / "cam_b" / name).touch()
    with pytest.raises(ValueError, match=rf"{name} is not named as in VIPeR.*000_45\.bmp"):
        create_dataset("viper", viper_root)


def test_another_folder_is_told_with_what_was_expected(tmp_path):
    (tmp_path / "cam_a").mkdir()
    (tmp_path / "cam_a" / "000_45.bmp").touch()
    with pytest.raises(FileNotFoundError, match=r"lacks cam_b/\[0-9\]\*_\*"):
        create_dataset("viper", tmp_path)


def test_the_published_counts_agree_with_the_set_as_published(tmp_path, caplog):
    for camera, angle in (("cam_a", 0), ("cam_b", 90)):
        (tmp_path / camera).mkdir()
        for pid in range(632):
            (tmp_path / camera / f"{pid:03d}_{angle}.bmp").touch()
    with caplog.at_level(logging.WARNING):
        create_dataset("viper", tmp_path)
        assert not caplog.messages
        for camera in ("cam_a", "cam_b"):
            next((tmp_path / camera).glob("631_*")).unlink()
        create_dataset("viper", tmp_path)
    assert "train of" in caplog.messages[0]
    assert "630 images, 315 ids" in caplog.messages[0]
