import os
import shutil
from pathlib import Path

import pytest
from noise_image import write_noise

from rga_timm.data import ReidDataset, create_dataset
from rga_timm.data.datasets.folder import SPLIT_FILE


def make(root: Path, *paths: str) -> Path:
    """Images are not opened by the reader: empty files will do."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def under_test(root: Path, *paths: str) -> Path:
    return make(root, *(f"test/{path}" for path in paths))


def listed(reader) -> list[tuple[str, int]]:
    return [(image.path, image.pid) for image in reader.images]


def test_each_folder_is_a_person_in_train_query_and_gallery(tmp_path):
    make(tmp_path, "train/zoé/2.jpg", "train/zoé/1.JPG", "train/Ben K./a b.png")
    make(tmp_path, "Query/ann/1.webp", "gallery/ann/far/away/1.tiff", "gallery/ann/2.jpeg")
    splits = create_dataset("folder", tmp_path)
    assert listed(splits.train) == [
        ("train/Ben K./a b.png", 1),
        ("train/zoé/1.JPG", 3),
        ("train/zoé/2.jpg", 3),
    ]
    assert listed(splits.query) == [("Query/ann/1.webp", 2)]
    assert sorted(listed(splits.gallery)) == [
        ("gallery/ann/2.jpeg", 2),
        ("gallery/ann/far/away/1.tiff", 2),
    ]
    assert not splits.has_cameras
    assert len({*splits.query.camids, *splits.gallery.camids}) == 3
    assert splits.name == "folder"


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation", "TEST"])
def test_all_images_of_test_are_queries_and_gallery(tmp_path, name):
    make(tmp_path, *(f"{name}/{person}/{i}.bmp" for person in ("07", "12") for i in range(2)))
    splits = create_dataset("folder", tmp_path)
    assert splits.query.images == splits.gallery.images
    assert splits.query.pids.tolist() == [7, 7, 12, 12]
    assert splits.query.camids.tolist() == [1, 2, 3, 4]


def test_people_of_an_undivided_folder_are_dealt_and_the_deal_is_kept_beside_them(tmp_path, caplog):
    root = make(tmp_path / "a", *(f"{p}/{i}.jpg" for p in "abcdef" for i in range(2)))
    first = create_dataset("folder:seed=4", root)
    assert len(first.train) == len(first.query) == 6
    assert (root / SPLIT_FILE).is_file()
    shutil.copytree(root, tmp_path / "b", ignore=shutil.ignore_patterns("*.csv"))
    assert create_dataset("folder:seed=4", tmp_path / "b").fingerprint == first.fingerprint
    make(root, "a/3.jpg", "f/3.jpg")
    again = create_dataset("folder", root)
    assert {*again.train.pids} == {*first.train.pids}
    assert len(again.train) + len(again.query) == 14
    assert not caplog.messages  # the file itself is no file that does not belong there


def test_the_split_may_be_kept_elsewhere(tmp_path):
    root = make(tmp_path / "a", *(f"{p}/{i}.jpg" for p in "abcdef" for i in range(2)))
    create_dataset(f"folder:test_share=.34,split_file={tmp_path / 'mine.csv'}", root)
    assert (tmp_path / "mine.csv").read_text().count(",test") == 2
    assert not (root / SPLIT_FILE).exists()


def test_everybody_can_be_tested_on(tmp_path):
    root = make(tmp_path, *(f"{p}/{i}.jpg" for p in "ab" for i in range(2)))
    splits = create_dataset("folder:test_share=1", root)
    assert (len(splits.train), len(splits.query), len(splits.gallery)) == (0, 4, 4)


def test_the_camera_is_the_folder_below_the_person_s(tmp_path):
    paths = ("p/hall/1.jpg", "p/door/x/2.jpg", "q/door/1.jpg")
    splits = create_dataset("folder:camera=folder", under_test(tmp_path, *paths))
    assert splits.has_cameras
    assert {i.path: i.camid for i in splits.query.images} == {
        "test/p/hall/1.jpg": 2,
        "test/p/door/x/2.jpg": 1,
        "test/q/door/1.jpg": 1,
    }
    under_test(tmp_path, "q/2.jpg")
    with pytest.raises(ValueError, match=r"PERSON/CAMERA/, but test/q/2\.jpg is right in"):
        create_dataset("folder:camera=folder", tmp_path)


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("0002_c13s1_000451_03.jpg", 13),
        ("cam3_001.jpg", 3),
        ("C07.jpg", 7),
        ("20 Camera_2 c5.jpg", 2),
        ("x-cam-4.jpg", 4),
        ("abc12_c6.jpg", 6),
    ],
)
def test_the_camera_is_found_in_the_name(tmp_path, name, camera):
    # What is called like a camera further up does not count.
    under_test(tmp_path, f"c99/{name}", "c99/c1.jpg")
    splits = create_dataset("folder:camera=name", tmp_path)
    assert {i.path: i.camid for i in splits.query.images} == {
        f"test/c99/{name}": camera,
        "test/c99/c1.jpg": 1,
    }


def test_the_camera_is_what_a_regular_expression_says(tmp_path):
    under_test(tmp_path, "p/2024/hall-1.jpg", "p/2025/hall-2.jpg", "p/2025/door-3.jpg")
    splits = create_dataset(r"folder:camera=([a-z]+)-\d", tmp_path)
    assert splits.query.camids.tolist() == [2, 1, 2]
    splits = create_dataset("folder", tmp_path, camera=r"p/(\d{4,4})/")
    assert splits.query.camids.tolist() == [2024, 2025, 2025]


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ("name", r"no camera is found in test/p/1\.jpg with camera=name"),
        (r"_(\d+)", r"no camera is found in test/p/1\.jpg"),
        (r"(_\d+)?1", r"no camera is found in test/p/1\.jpg"),
        ("folders", "is a regular expression .not none, folder or name., but it has 0"),
        (r"(\d)(\d)", "it has 2 groups"),
        (r"(\d", "is not a regular expression: missing"),
    ],
)
def test_a_camera_that_is_not_found_is_an_error(tmp_path, camera, message):
    under_test(tmp_path, "p/1.jpg", "p/2.jpg")
    with pytest.raises(ValueError, match=message):
        create_dataset(f"folder:camera={camera}", tmp_path)


def test_cameras_that_seem_to_be_in_the_names_are_pointed_at(tmp_path, caplog):
    names = ("0002_c1s1_000451_03.jpg", "0002_c2_f0046182.jpg")
    under_test(tmp_path, *(f"2/{name}" for name in names), "2/x.jpg")
    create_dataset("folder", tmp_path)
    assert "names such as 0002_c1s1_000451_03.jpg seem to contain the camera" in caplog.text
    assert "camera=name reads it" in caplog.text
    caplog.clear()
    create_dataset("folder", tmp_path, camera=r"(?:_c|x)([\d.])")
    under_test(tmp_path, "2/y.jpg")  # now it is but half of the names
    create_dataset("folder", tmp_path)
    assert not caplog.messages


def test_other_files_are_counted_once_and_what_systems_leave_is_not(tmp_path, caplog):
    under_test(tmp_path, "p/1.jpg", "p/2.jpg", "p/notes.txt", "p/x/a.gif", "q/1.mp4")
    under_test(tmp_path, "p/._1.jpg", "p/Thumbs.db", "p/.cache/3.jpg", ".DS_Store")
    make(tmp_path, "README.md")
    splits = create_dataset("folder", tmp_path)
    assert len(splits.query) == 2
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        "ignored 4 files that are not images, such as README.md",
        "ignored 1 folders of people that hold no image, such as test/q",
    ]


def test_links_to_folders_are_followed(tmp_path):
    everybody = make(tmp_path / "all", "p/1.jpg", "p/2.jpg", "more/3.jpg")
    (everybody / "p" / "more").symlink_to(everybody / "more", target_is_directory=True)
    (tmp_path / "data" / "test").mkdir(parents=True)
    (tmp_path / "data" / "test" / "p").symlink_to(everybody / "p", target_is_directory=True)
    assert len(create_dataset("folder", tmp_path / "data").query) == 3


@pytest.mark.faults
def test_links_in_a_circle_change_nothing(tmp_path, caplog):
    root = make(
        tmp_path / "set", *(f"test/{p}/{c}/{i}.jpg" for p in "ab" for c in "xy" for i in "12")
    )
    expected = create_dataset("folder:camera=folder", root).query.images
    assert len(expected) == 8
    links = {"test/a/x/self": "test/a/x", "test/a/up": "test/a", "test/b/y/top": "test"}
    links |= {"test/b/root": ".", "test/loop": "test", "test/a/0": "test/b", "test/c": "test/b"}
    links |= {"test/b/y/above": ".."}
    for link, target in links.items():
        (root / link).symlink_to(root / target, target_is_directory=True)
    (root / "test" / "b" / "itself").symlink_to(root / "test" / "b" / "itself")
    assert create_dataset("folder:camera=folder", root).query.images == expected
    assert "ignored 8 links to folders that are read already, or lie above" in caplog.text


@pytest.mark.faults
def test_a_folder_elsewhere_is_read_once_however_many_links_lead_there(tmp_path):
    make(tmp_path / "elsewhere", "1.jpg", "deep/2.jpg")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    root = make(tmp_path / "set", "test/a/1.jpg", "test/b/1.jpg")
    for person in "ab":
        (root / "test" / person / "more").symlink_to(tmp_path / "elsewhere")
    splits = create_dataset("folder", root)
    names = ["a/1.jpg", "a/more/1.jpg", "a/more/deep/2.jpg", "b/1.jpg"]
    assert [image.path for image in splits.query.images] == [f"test/{name}" for name in names]


@pytest.mark.faults
def test_one_split_may_be_a_link_to_another(tmp_path):
    root = make(tmp_path, "gallery/a/1.jpg", "gallery/a/2.jpg")
    (root / "query").symlink_to(root / "gallery", target_is_directory=True)
    splits = create_dataset("folder", root)
    assert len(splits.query) == len(splits.gallery) == 2


@pytest.mark.faults
def test_pipes_are_no_images(tmp_path):
    under_test(tmp_path, "p/1.jpg", "p/2.jpg")
    os.mkfifo(tmp_path / "test" / "p" / "3.jpg")
    (tmp_path / "test" / "p" / "4.jpg").symlink_to(tmp_path / "test" / "p" / "3.jpg")
    assert len(create_dataset("folder", tmp_path).query) == 2


def test_images_in_nobody_s_folder_are_an_error(tmp_path):
    under_test(tmp_path, "p/1.jpg", "p/2.jpg", "3.jpg")
    with pytest.raises(
        ValueError, match=r"1 images, such as 3\.jpg, are right in .*test and not in"
    ):
        create_dataset("folder", tmp_path)
    (tmp_path / "test" / "3.jpg").rename(tmp_path / "3.jpg")
    with pytest.raises(ValueError, match=r"such as 3\.jpg, are right in"):
        create_dataset("folder", tmp_path)


def test_splits_beside_people_are_an_error(tmp_path):
    under_test(tmp_path, "p/1.jpg", "p/2.jpg")
    make(tmp_path, "val/p/1.jpg", "anna/1.jpg")
    with pytest.raises(ValueError, match=r"holds test, val, which are splits.*such as anna: move"):
        create_dataset("folder", tmp_path)


def test_two_folders_of_the_same_number_are_an_error(tmp_path):
    under_test(tmp_path, "7/1.jpg", "007/2.jpg")
    with pytest.raises(ValueError, match="the identities '007' and '7' are different names"):
        create_dataset("folder", tmp_path)


def test_no_folder_and_no_people_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder needs a folder"):
        create_dataset("folder")
    with pytest.raises(FileNotFoundError, match=r"found no folder .*nowhere"):
        create_dataset("folder", tmp_path / "nowhere")
    make(tmp_path, "a/notes.txt")
    with pytest.raises(FileNotFoundError, match=r"holds no images in folders .* found a/"):
        create_dataset("folder", tmp_path)


def test_one_folder_too_many_is_told(tmp_path):
    make(tmp_path, *(f"images/{p}/{i}.jpg" for p in "abcdef" for i in range(2)))
    with pytest.raises(ValueError, match=r"test_share=0\.5 of 1 identities"):
        create_dataset("folder", tmp_path)


def test_names_that_are_no_valid_text_are_read(tmp_path):
    person = os.fsdecode(b"Zo\xe9")
    try:
        under_test(tmp_path, f"{person}/1.jpg", f"{person}/2.jpg")
    except OSError:  # some file systems take valid text only
        person = "Zo"
        under_test(tmp_path, f"{person}/1.jpg", f"{person}/2.jpg")
    splits = create_dataset("folder", tmp_path)
    assert splits.query.images[0].path == f"test/{person}/1.jpg"
    assert len(splits.fingerprint) == 64


def test_the_images_can_be_opened(tmp_path):
    for i, extension in enumerate(("jpg", "png", "bmp", "webp", "tif")):
        write_noise(tmp_path / "test" / "p" / f"{i}.{extension}")
    dataset = ReidDataset(create_dataset("folder", tmp_path).query)
    assert [image.size for image, _ in dataset] == [(16, 32)] * 5


def test_a_folder_too_high_is_noticed(tmp_path, caplog):
    for i in range(16):
        write_noise(tmp_path / f"site{i % 4}" / f"person{i // 4}" / f"{i}.png", seed=i)
    create_dataset("folder", tmp_path)
    assert "is the data set a folder below?" in caplog.text
    caplog.clear()
    create_dataset("folder:camera=folder", tmp_path)
    assert "a folder below" not in caplog.text
