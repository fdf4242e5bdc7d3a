import logging
import os
import shutil
from pathlib import Path

import pytest
from noise_image import write_noise

from rga_timm.data import Counts, create_dataset

TRAIN = [
    "0000/0000_000_01_0303morning_0008_0.jpg 0",
    "0001/0001_007_15_0303noon_0612_1_ex.jpg 1",
    "0000/0000_003_04_0303afternoon_0020_2.jpg 0",
]
VAL = ["0001/0001_009_09_0113morning_0700_0.jpg 1"]
# Other people than those of train, with the same numbers.
QUERY = ["0000/0000_000_01_0303morning_0015_0.jpg 0"]
GALLERY = [
    "0000/0000_002_14_0303morning_0016_2.jpg 0",
    "0001/0001_002_01_0303morning_1475_1.jpg 1",
]
FOLDERS = {"v1": ("train", "test"), "v2": ("mask_train_v2", "mask_test_v2")}


def write(root: Path, *versions: str) -> Path:
    """The set as its archives have it."""
    lists = {"train": TRAIN, "val": VAL, "query": QUERY, "gallery": GALLERY}
    for number, (name, lines) in enumerate(lists.items()):
        for version in versions:
            for line in lines:
                folder = FOLDERS[version][number // 2]
                write_noise(root / folder / line.split()[0], seed=number)
        (root / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def v1(tmp_path) -> Path:
    return write(tmp_path / "MSMT17_V1", "v1")


def test_the_lists_say_who_is_in_which_split_and_the_names_by_which_camera(v1):
    splits = create_dataset("msmt17", v1)
    assert splits.root == v1
    assert [image[:3] for image in splits.train.images] == [
        ("train/0000/0000_000_01_0303morning_0008_0.jpg", 0, 1),
        ("train/0001/0001_007_15_0303noon_0612_1_ex.jpg", 1, 15),
        ("train/0000/0000_003_04_0303afternoon_0020_2.jpg", 0, 4),
    ]
    assert [image[:3] for image in splits.query.images] == [
        ("test/0000/0000_000_01_0303morning_0015_0.jpg", 0, 1),
    ]
    assert [image[:3] for image in splits.gallery.images] == [
        ("test/0000/0000_002_14_0303morning_0016_2.jpg", 0, 14),
        ("test/0001/0001_002_01_0303morning_1475_1.jpg", 1, 1),
    ]
    for reader in splits.readers.values():
        for index in range(len(reader)):
            reader.open(index).close()


def test_val_is_trained_on_only_where_it_was_asked_for(v1):
    assert len(create_dataset("msmt17", v1).train) == 3
    splits = create_dataset("msmt17:val=true", v1)
    added = "train/0001/0001_009_09_0113morning_0700_0.jpg"
    assert [image.path for image in splits.train.images[3:]] == [added]
    assert splits.train.labels.tolist() == [0, 1, 0, 1]


def test_the_published_counts_are_those_of_what_is_trained_on(v1):
    plain = create_dataset("msmt17", v1).published
    assert plain["train"] == Counts(30248, 1041, 15)
    assert plain["query"] == Counts(11659, 3060, 15)
    assert plain["gallery"] == Counts(82161, 3060, 15)
    with_val = create_dataset("msmt17:val=true", v1).published
    assert with_val == {**plain, "train": Counts(32621, 1041, 15)}


def test_a_set_without_the_list_of_val_is_read_until_val_is_asked_for(v1):
    (v1 / "list_val.txt").unlink()
    create_dataset("msmt17", v1)
    with pytest.raises(FileNotFoundError, match=r"no list .*list_val\.txt"):
        create_dataset("msmt17:val=true", v1)


def test_numbers_that_start_again_are_not_taken_for_people_trained_and_tested_on(v1, caplog):
    splits = create_dataset("msmt17", v1)
    assert splits.classes == sorted(splits.gallery.pids) == [0, 1]
    assert splits.shared_pids() == []
    assert not [message for message in caplog.messages if "too good" in message]


@pytest.mark.parametrize("around", ["MSMT17_V2", "msmt17/MSMT17_V2", "."])
def test_the_second_version_is_found_and_named(tmp_path, caplog, around):
    root = write(tmp_path / around, "v2")
    with caplog.at_level(logging.INFO):
        splits = create_dataset("msmt17", tmp_path)
    assert splits.root == root
    assert splits.name == "msmt17:version=v2"
    assert f"{root}: MSMT17 V2, with masked faces" in caplog.messages
    assert splits.train.images[0].path == "mask_train_v2/0000/0000_000_01_0303morning_0008_0.jpg"
    assert {image.path.split("/")[0] for image in splits.query.images} == {"mask_test_v2"}
    assert {image.path.split("/")[0] for image in splits.gallery.images} == {"mask_test_v2"}


def test_the_first_version_is_named_too_and_the_name_reads_the_same_again(v1, caplog):
    with caplog.at_level(logging.INFO):
        splits = create_dataset("msmt17", v1, val=True)
    assert f"{v1}: MSMT17 V1, as first published" in caplog.messages
    assert splits.name == "msmt17:val=true,version=v1"
    again = create_dataset(splits.name, v1)
    assert (again.name, again.fingerprint) == (splits.name, splits.fingerprint)


def test_of_both_versions_one_has_to_be_asked_for(tmp_path):
    root = write(tmp_path / "msmt17", "v1", "v2")
    with pytest.raises(
        ValueError, match=r"both versions .* msmt17:version=v1 or msmt17:version=v2"
    ):
        create_dataset("msmt17", root)
    for version, (train, _) in FOLDERS.items():
        splits = create_dataset(f"msmt17:version={version}", root)
        assert splits.name == f"msmt17:version={version}"
        assert splits.train.images[0].path.startswith(f"{train}/0000/")


def test_of_both_versions_side_by_side_one_has_to_be_asked_for(v1):
    v2 = write(v1.with_name("MSMT17_V2"), "v2")
    with pytest.raises(FileNotFoundError, match=r"\(MSMT17_V1, MSMT17_V2\): name one"):
        create_dataset("msmt17", v1.parent)
    assert create_dataset("msmt17:version=v1", v1.parent).root == v1
    assert create_dataset("msmt17:version=v2", v1.parent).root == v2


def test_a_version_that_is_not_there_is_an_error(v1):
    with pytest.raises(FileNotFoundError, match=r"As V2's layout it lacks mask_train_v2, mask_te"):
        create_dataset("msmt17:version=v2", v1)


def test_the_folder_of_training_images_leads_to_the_whole(v1):
    assert create_dataset("msmt17", v1 / "train").root == v1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0000/0000_000_01_0303morning_0008_0.jpg", "is not a path and a person"),
        ("0000/0000_000_01_0303morning_0008_0.jpg one", "person 'one' is not a whole number"),
        ("0000/0000_000_01_0303morning_0008_0.jpg 1.0", r"person '1\.0' is not a whole number"),
        ("0000/0000_000_01_0303morning_0008_0.jpg 1_0", "person '1_0' is not a whole number"),
        ("0000/0000_000_01_0303morning_0008_0.jpg -1", "person -1 is negative"),
        ("0000/0000_c1s1_000451_03.jpg 0", "does not say which camera"),
        ("0000/0000_000_01.jpg 0", "does not say which camera"),
        ("0000_000_01_x/0008.jpg 0", "does not say which camera"),
        ("../test/0000/0000_000_01_0303morning_0015_0.jpg 0", "leads out of train"),
        ("/etc/0000_000_01_0303morning_0015_0.jpg 0", "leads out of train"),
    ],
)
def test_a_wrong_line_is_an_error_with_its_place(v1, line, message):
    path = v1 / "list_train.txt"
    path.write_text("\n".join([TRAIN[0], "", line, *TRAIN[1:]]))
    with pytest.raises(ValueError, match=rf"list_train\.txt:3: .*{message}"):
        create_dataset("msmt17", v1)


def test_blanks_tabs_and_the_line_ends_of_windows_do_not_matter(v1):
    expected = create_dataset("msmt17", v1).fingerprint
    lines = "\r\n".join([TRAIN[0], TRAIN[1].replace(" ", "\t"), f" {TRAIN[2]}  ", ""])
    (v1 / "list_train.txt").write_bytes(lines.encode())
    assert create_dataset("msmt17", v1).fingerprint == expected


@pytest.mark.parametrize("how", ["file", "folder", "place"])
def test_files_that_are_not_there_are_told_with_the_first_and_their_number(v1, how):
    if how == "file":
        (v1 / "test" / "0001" / "0001_002_01_0303morning_1475_1.jpg").unlink()
    elif how == "folder":
        shutil.rmtree(v1 / "test" / "0001")
    else:
        shutil.rmtree(v1 / "test" / "0001")
        (v1 / "test" / "0001").touch()
    message = r"list_gallery\.txt:2: there is no file .*1475_1\.jpg\. 1 of the 2 files"
    with pytest.raises(FileNotFoundError, match=message):
        create_dataset("msmt17", v1)


def test_each_folder_is_listed_once(v1, monkeypatch):
    scanned = []
    original = os.scandir

    def scandir(folder):
        scanned.append(Path(folder))
        return original(folder)

    monkeypatch.setattr("rga_timm.data.layout.os.scandir", scandir)
    create_dataset("msmt17:val=true", v1)
    of_people = [folder for folder in scanned if folder.parent.parent == v1]
    assert sorted(of_people) == [
        v1 / "test" / "0000",
        v1 / "test" / "0001",
        v1 / "train" / "0000",
        v1 / "train" / "0001",
    ]
