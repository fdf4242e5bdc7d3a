import logging

import numpy as np
import pytest
import scipy.io
from noise_image import write_noise

from rga_timm.data import create_dataset

PEOPLE = list(range(1, 7))
TRAIN = [[1 + (number + step) % 6 for step in (0, 1, 3)] for number in range(10)]
FIELDS = ("probeImIdx", "galleryImIdx", "personIdx")


def write_partitions(path, train=TRAIN, people=PEOPLE, fields=FIELDS):
    """As the archive has it: cells of structs. Features go gallery 1, probe 1, gallery 2, …"""

    def cells(halves):
        cell = np.empty((1, len(halves)), dtype=object)
        for number, pids in enumerate(halves):
            rows = np.array([pids], dtype=np.float64)
            cell[0, number] = dict(zip(fields, (2 * rows, 2 * rows - 1, rows), strict=True))
        return cell

    test = [[pid for pid in people if pid not in half] for half in train]
    scipy.io.savemat(
        path,
        {
            "ftrset": np.zeros((4, 2)),
            "trainIdxAll": cells(train),
            "testIdxAll": cells(test),
        },
    )


@pytest.fixture
def grid_root(tmp_path):
    """The archive's own folder: each of 6 people asked for and found, 3 others, 8 cameras."""
    root = tmp_path / "underground_reid"
    for pid in PEOPLE:
        write_noise(root / "probe" / f"{pid:04d}_{pid}_25004_107_32_106_{220 + pid}.jpeg", seed=pid)
        write_noise(root / "gallery" / f"{pid:04d}_{pid + 2}_25104_94_7_99_249.jpeg", seed=9 + pid)
    for number in range(3):
        write_noise(root / "gallery" / f"0000_{number + 1}_25008_175_34_66_18{number}.jpeg")
    (root / "correspondence.txt").write_text("")
    write_partitions(root / "features_and_partitions.mat")
    return root


@pytest.mark.parametrize("split", range(10))
def test_the_given_partitions_are_taken(grid_root, split):
    splits = create_dataset(f"grid:split={split}", grid_root)
    train = sorted(TRAIN[split])
    test = [pid for pid in PEOPLE if pid not in train]
    assert splits.classes == train
    assert splits.train.pids.tolist() == train + train
    assert splits.query.pids.tolist() == test
    assert splits.gallery.pids.tolist() == [0, 0, 0, *test]


def test_every_field_of_the_names_is_read(grid_root):
    splits = create_dataset("grid", grid_root)  # 1, 2, 4 are trained on
    assert [image[:3] for image in splits.train.images[:2]] == [
        ("probe/0001_1_25004_107_32_106_221.jpeg", 1, 1),
        ("probe/0002_2_25004_107_32_106_222.jpeg", 2, 2),
    ]
    assert splits.train.camids.tolist() == [1, 2, 4, 3, 4, 6]
    assert splits.query.camids.tolist() == [3, 5, 6]
    assert splits.gallery.camids.tolist() == [1, 2, 3, 5, 7, 8]
    assert splits.gallery.images[0].path == "gallery/0000_1_25008_175_34_66_180.jpeg"


def test_torchreid_has_a_folder_around_it(grid_root, tmp_path):
    expected = create_dataset("grid", grid_root)
    (tmp_path / "grid").mkdir()
    moved = grid_root.rename(tmp_path / "grid" / "underground_reid")
    for root in (tmp_path, tmp_path / "grid", moved / "probe"):
        found = create_dataset("grid", root)
        assert found.root == moved
        assert found.fingerprint == expected.fingerprint


def test_the_third_field_is_the_person_whatever_its_name(grid_root):
    write_partitions(
        grid_root / "features_and_partitions.mat", fields=("probe", "gallery", "person")
    )
    assert create_dataset("grid:split=2", grid_root).classes == sorted(TRAIN[2])


def test_a_person_who_is_missing_on_one_side_is_an_error(grid_root):
    (grid_root / "gallery" / "0003_5_25104_94_7_99_249.jpeg").unlink()
    with pytest.raises(ValueError, match=r"gallery lacks 1 people, such as 3, whom GRID has in"):
        create_dataset("grid", grid_root)
    (grid_root / "probe" / "0003_3_25004_107_32_106_223.jpeg").unlink()
    (grid_root / "probe" / "0006_6_25004_107_32_106_226.jpeg").unlink()
    with pytest.raises(ValueError, match=r"probe lacks 1 people, such as 6"):
        create_dataset("grid", grid_root)


def test_two_images_of_one_person_to_be_found_are_an_error(grid_root):
    write_noise(grid_root / "gallery" / "0003_1_1_1_1_1_1.jpeg")
    with pytest.raises(ValueError, match="gallery holds two images of person 3"):
        create_dataset("grid", grid_root)


@pytest.mark.parametrize(
    "name", ["0001_c1s1_000451_03.jpg", "0001_1.jpeg", "x_1_2_3.jpeg", "a.txt"]
)
def test_a_name_of_another_form_is_an_error(grid_root, name):
    (grid_root / "probe" / name).touch()
    with pytest.raises(ValueError, match=rf"{name} is not named as in GRID.*0001_1_25004_107"):
        create_dataset("grid", grid_root)


@pytest.mark.parametrize(
    ("half", "message"),
    [
        ([1, 2, 77], r"names 1 people who are not there, such as 77"),
        ([1, 2, 0], r"names 1 people who are not there, such as 0"),
        ([1, 2, 2], r"names somebody twice"),
        (PEOPLE, r"leaves nobody to test on"),
        ([], r"leaves nobody to train on"),
    ],
)
def test_a_partition_that_does_not_fit_is_told_with_file_and_number(grid_root, half, message):
    write_partitions(grid_root / "features_and_partitions.mat", [*TRAIN[:4], half, *TRAIN[5:]])
    place = r"features_and_partitions\.mat, trainIdxAll\{5\}\.personIdx"
    with pytest.raises(ValueError, match=f"{place} {message}"):
        create_dataset("grid:split=4", grid_root)
    assert create_dataset("grid:split=3", grid_root).classes == sorted(TRAIN[3])


def test_other_than_ten_partitions_are_an_error(grid_root):
    write_partitions(grid_root / "features_and_partitions.mat", TRAIN[:9])
    with pytest.raises(ValueError, match=r"holds 9 partitions; GRID comes with 10"):
        create_dataset("grid", grid_root)


def test_another_matlab_file_is_an_error(grid_root):
    path = grid_root / "features_and_partitions.mat"
    scipy.io.savemat(path, {"ftrset": np.zeros((4, 2))})
    with pytest.raises(ValueError, match=r"partitions\.mat holds no trainIdxAll"):
        create_dataset("grid", grid_root)
    scipy.io.savemat(path, {"trainIdxAll": np.arange(10)})
    with pytest.raises(ValueError, match=r"trainIdxAll\{1\} is not a struct of probeImIdx"):
        create_dataset("grid", grid_root)


@pytest.mark.parametrize("content", [b"", b"no MATLAB file", b"MATLAB 7.3" + bytes(200)])
def test_a_broken_file_is_an_error(grid_root, content):
    (grid_root / "features_and_partitions.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"partitions\.mat is not a MATLAB file of version 4 to 7"):
        create_dataset("grid", grid_root)


def test_the_published_counts_agree_with_the_set_as_published(tmp_path, caplog):
    people = list(range(1, 251))
    for folder in ("probe", "gallery"):
        (tmp_path / folder).mkdir()
        for pid in people:
            (tmp_path / folder / f"{pid:04d}_{pid % 8 + 1}_25004_1_2_3_4.jpeg").touch()
    for number in range(775):
        (tmp_path / "gallery" / f"0000_{number % 8 + 1}_{number}_1_2_3_4.jpeg").touch()
    path = tmp_path / "features_and_partitions.mat"
    write_partitions(path, [people[number : 125 + number] for number in range(10)], people)
    with caplog.at_level(logging.WARNING):
        create_dataset("grid:split=1", tmp_path)
        assert not caplog.messages
        (tmp_path / "gallery" / "0000_1_0_1_2_3_4.jpeg").unlink()
        create_dataset("grid:split=1", tmp_path)
    assert "899 images, 126 ids" in caplog.messages[0]
