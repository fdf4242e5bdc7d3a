from pathlib import Path

import numpy as np
import pytest
import scipy.io
from noise_image import write_noise

from rga_timm.data import ReidImage, create_dataset, partition_specs

PEOPLE = [1, 2, 14, 319]  # as in the data set the numbers have gaps
SEQUENCES = "i-LIDS-VID/sequences"
PARTITIONS = [[4, 1, 2, 3], [2, 3, 1, 4]] + [[1, 2, 3, 4]] * 8


def frames(pid: int, camid: int) -> range:
    return range(317, 317 + camid + pid % 2)


def write_partitions(root: Path, partitions: list[list[int]]) -> None:
    folder = root / "train-test people splits"
    folder.mkdir(exist_ok=True)
    table = np.array(partitions, dtype=np.uint16)
    scipy.io.savemat(folder / "train_test_splits_ilidsvid.mat", {"ls_set": table})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "iLIDS-VID"
    for pid in PEOPLE:
        for camid in (1, 2):
            folder = root / SEQUENCES / f"cam{camid}" / f"person{pid:03d}"
            for frame in frames(pid, camid):
                write_noise(folder / f"cam{camid}_person{pid:03d}_{frame:05d}.png", seed=frame)
            single = root / "i-LIDS-VID/images" / f"cam{camid}" / f"person{pid:03d}"
            write_noise(single / f"cam{camid}_person{pid:03d}.png")
    (root / SEQUENCES / "cam1" / "person001" / "Thumbs.db").touch()
    write_partitions(root, PARTITIONS)
    return root


def tracklet(pid: int, camid: int, number: int) -> list[ReidImage]:
    folder = f"{SEQUENCES}/cam{camid}/person{pid:03d}"
    return [
        ReidImage(f"{folder}/cam{camid}_person{pid:03d}_{frame:05d}.png", pid, camid, number)
        for frame in frames(pid, camid)
    ]


def test_the_first_half_of_a_partition_is_tested_on_and_the_rest_trained_on(root):
    splits = create_dataset("ilids_vid", root)  # 4 1 | 2 3, places among the sorted people
    assert splits.query.images == tracklet(1, 1, 1) + tracklet(319, 1, 7)
    assert splits.gallery.images == tracklet(1, 2, 2) + tracklet(319, 2, 8)
    assert splits.train.images == [
        *tracklet(2, 1, 3),
        *tracklet(2, 2, 4),
        *tracklet(14, 1, 5),
        *tracklet(14, 2, 6),
    ]
    assert splits.classes == [2, 14]


def test_a_split_is_a_row_of_the_partitions(root):
    splits = create_dataset("ilids_vid:split=1", root)
    assert sorted(set(splits.query.pids.tolist())) == [2, 14]
    assert splits.name == "ilids_vid:split=1"
    assert partition_specs("ilids_vid:split=all")[9] == "ilids_vid:split=9"
    with pytest.raises(ValueError, match="split 10 is not one of the 10"):
        create_dataset("ilids_vid:split=10", root)


def test_the_root_may_be_the_folder_of_the_images(root):
    splits = create_dataset("ilids_vid", root / "i-LIDS-VID")
    assert splits.fingerprint == create_dataset("ilids_vid", root).fingerprint


def test_tests_are_of_tracklets(root):
    _, target = create_dataset("ilids_vid", root).gallery[1]
    assert target.tolist() == [1, 2, 2]


def test_somebody_under_one_camera_only_is_an_error(root):
    (root / SEQUENCES / "cam2/person014").rename(root / SEQUENCES / "cam2/person015")
    with pytest.raises(ValueError, match="person014 is under one of the two cameras only"):
        create_dataset("ilids_vid", root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cam1/person014", "cam1/somebody", "somebody is not named as in iLIDS-VID"),
        (
            "cam1/person002/cam1_person002_00317.png",
            "cam1/person002/cam2_person002_00317.png",
            r"cam2_person002_00317\.png is not named.*cam1_person002_00317\.png",
        ),
    ],
)
def test_a_name_that_does_not_fit_its_folder_is_an_error(root, old, new, message):
    (root / SEQUENCES / old).rename(root / SEQUENCES / new)
    with pytest.raises(ValueError, match=message):
        create_dataset("ilids_vid", root)


def test_an_empty_tracklet_is_an_error(root):
    (root / SEQUENCES / "cam1/person002/cam1_person002_00317.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"cam1/person002 holds no images of iLIDS-VID.*such as cam1_per"
    ):
        create_dataset("ilids_vid", root)


@pytest.mark.parametrize("row", [[1, 2, 3, 3], [0, 1, 2, 3], [1, 2, 3, 5], [1, 2, 3, 4, 5, 6]])
def test_partitions_of_other_people_are_an_error(root, row):
    write_partitions(root, [row])
    with pytest.raises(ValueError, match=r"row 1: not a permutation of the 4 people"):
        create_dataset("ilids_vid", root)
    with pytest.raises(ValueError, match="holds the partitions 0 to 0, not 3"):
        create_dataset("ilids_vid", root, split=3)
