import logging
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from noise_image import write_noise

from rga_timm.data import ReidDataset, ReidImage, create_dataset

# Person as in file names, pid, camera, tracklet of the person, frames; in the order of the tables.
TRAIN = [
    ("0001", 1, 1, 1, 2),
    ("0001", 1, 1, 2, 1),
    ("0001", 1, 6, 3, 1),
    ("1499", 1499, 2, 1, 2),
]
TEST = [
    ("00-1", -1, 1, 1, 2),  # 1: junk
    ("0000", 0, 1, 1, 2),  # 2: distractors
    ("0000", 0, 5, 2, 1),
    ("0002", 2, 1, 1, 3),  # 4
    ("0002", 2, 1, 2, 1),
    ("0002", 2, 3, 3, 2),
    ("1500", 1500, 2, 1, 1),  # 7
    ("1500", 1500, 4, 2, 2),
]
QUERIES = [4, 7, 8]


def names_of(tracklets) -> list[list[str]]:
    return [
        [f"{person}C{camid}T{number:04d}F{frame:03d}.jpg" for frame in range(1, frames + 1)]
        for person, _, camid, number, frames in tracklets
    ]


def table_of(tracklets) -> np.ndarray:
    lasts = np.cumsum([frames for *_, frames in tracklets])
    return np.array(
        [
            (last - frames + 1, last, pid, camid)
            for (_, pid, camid, _, frames), last in zip(tracklets, lasts, strict=True)
        ],
        dtype=np.int32,
    )


def write_table(root: Path, split: str, table: np.ndarray) -> None:
    scipy.io.savemat(root / "info" / f"tracks_{split}_info.mat", {f"track_{split}_info": table})


def write_queries(root: Path, numbers: list[int]) -> None:
    content = {"query_IDX": np.array([numbers], dtype=np.uint16)}
    scipy.io.savemat(root / "info" / "query_IDX.mat", content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The authors' file names, line ends, types of numbers and names of variables."""
    root = tmp_path / "mars"
    (root / "info").mkdir(parents=True)
    for split, tracklets in (("train", TRAIN), ("test", TEST)):
        lines = [name for names in names_of(tracklets) for name in names]
        for name in lines:
            write_noise(root / f"bbox_{split}" / name[:4] / name)
        text = "".join(f"{line}\r\n" for line in lines)
        (root / "info" / f"{split}_name.txt").write_bytes(text.encode())
        write_table(root, split, table_of(tracklets))
    write_queries(root, QUERIES)
    return root


def expected(folder: str, tracklets, numbers) -> list[ReidImage]:
    names = names_of(tracklets)
    return [
        ReidImage(f"{folder}/{name[:4]}/{name}", pid, camid, number)
        for number in numbers
        for _, pid, camid, *_ in [tracklets[number - 1]]
        for name in names[number - 1]
    ]


def test_tracklets_are_those_of_the_tables_without_junk_and_with_distractors(root):
    splits = create_dataset("mars", root)
    assert splits.train.images == expected("bbox_train", TRAIN, [1, 2, 3, 4])
    assert splits.query.images == expected("bbox_test", TEST, QUERIES)
    assert splits.gallery.images == expected("bbox_test", TEST, [2, 3, 5, 6])
    assert splits.classes == [1, 1499]
    assert splits.name == "mars"


def test_the_names_of_a_small_set_are_as_published(root):
    paths = [image.path for image in create_dataset("mars", root).train.images]
    assert paths[:3] == [
        "bbox_train/0001/0001C1T0001F001.jpg",
        "bbox_train/0001/0001C1T0001F002.jpg",
        "bbox_train/0001/0001C1T0002F001.jpg",
    ]


def test_the_gallery_may_hold_the_queries_as_with_the_authors(root):
    splits = create_dataset("mars:queries_in_gallery=true", root)
    assert splits.gallery.images == expected("bbox_test", TEST, range(2, 9))
    assert splits.query.images == create_dataset("mars", root).query.images


def test_images_are_tested_with_their_tracklet_and_trained_on_without(root):
    splits = create_dataset("mars", root)
    targets = [target.tolist() for _, target in ReidDataset(splits.query)]
    assert targets == [[2, 1, 4]] * 3 + [[1500, 2, 7]] + [[1500, 4, 8]] * 2
    assert [t.tolist() for _, t in ReidDataset(splits.train)][-1] == [1, 2]


def test_counts_other_than_the_published_ones_are_warned_of(root, caplog):
    with caplog.at_level(logging.WARNING):
        create_dataset("mars", root)
        create_dataset("mars:queries_in_gallery=true", root)
    assert [message.split()[0] for message in caplog.messages] == ["train", "query", "gallery"] * 2
    assert "6 images, 2 ids, 3 cameras, 4 tracklets" in caplog.messages[0]
    assert "with 509914 images, 625 ids, 6 cameras, 8298 tracklets" in caplog.messages[0]
    assert "with 543216 images, 621 ids, 6 cameras, 9330 tracklets" in caplog.messages[2]
    assert "with 657709 images, 635 ids, 6 cameras, 11310 tracklets" in caplog.messages[5]


def test_what_the_info_folder_lacks_is_told(root):
    (root / "info" / "query_IDX.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks info/query_IDX\.mat"):
        create_dataset("mars", root)


def test_images_that_are_not_there_are_counted_and_the_first_is_named(root):
    (root / "bbox_train/0001/0001C6T0003F001.jpg").unlink()
    for file in (root / "bbox_train/1499").iterdir():
        file.unlink()
    (root / "bbox_train/1499").rmdir()
    with pytest.raises(FileNotFoundError, match=r"3 images of .*train_name\.txt are .*C6T0003F001"):
        create_dataset("mars", root)


def test_junk_need_not_be_there(root):
    for file in (root / "bbox_test/00-1").iterdir():
        file.unlink()
    assert len(create_dataset("mars", root).gallery) == 6


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (2, 2, r"train_name\.txt:4: 0001C6T0003F001\.jpg is not of person 2 and camera 6.* row 3"),
        (3, 5, r"train_name\.txt:4: 0001C6T0003F001\.jpg is not of person 1 and camera 5"),
        (1, 5, r"train_name\.txt:5: 1499C2T0001F001\.jpg is not of person 1 "),
        (1, 7, r"tracks_train_info\.mat, row 3: images 4 to 7, but train_name\.txt has 6"),
        (1, 3, r"row 3: images 4 to 3"),
        (0, 0, r"row 3: images 0 to 4"),
    ],
)
def test_a_table_that_does_not_fit_the_names_is_an_error(root, column, value, message):
    table = table_of(TRAIN)
    table[2, column] = value
    write_table(root, "train", table)
    with pytest.raises(ValueError, match=message):
        create_dataset("mars", root)


def test_a_name_of_another_data_set_is_an_error_with_its_line(root):
    path = root / "info" / "train_name.txt"
    path.write_text(path.read_text().replace("1499C2T0001F002", "1499_c2s1_000451_03"))
    with pytest.raises(ValueError, match=r"train_name\.txt:6: 1499_c2s1.* not named as in MARS"):
        create_dataset("mars", root)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ([4, 4], "is empty, or names a tracklet twice"),
        ([], "is empty, or names a tracklet twice"),
        ([1], "1 is not the number of a person's test tracklet"),
        ([4, 9], "9 is not the number"),
        ([0], "0 is not the number"),
    ],
)
def test_queries_that_are_not_tracklets_of_people_are_an_error(root, queries, message):
    write_queries(root, queries)
    with pytest.raises(ValueError, match=message):
        create_dataset("mars", root)


def test_a_table_of_another_shape_or_without_people_is_an_error(root):
    write_table(root, "train", table_of(TRAIN)[:, :3])
    with pytest.raises(ValueError, match="3 columns, not 4"):
        create_dataset("mars", root)
    write_table(root, "train", np.array([[1, 2, -1, 1]]))
    with pytest.raises(ValueError, match=r"tracks_train_info\.mat holds no tracklets of people"):
        create_dataset("mars", root)
