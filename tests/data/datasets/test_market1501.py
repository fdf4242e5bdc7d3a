import logging
import shutil

import pytest
from noise_image import write_noise

from rga_timm.data import Counts, create_dataset
from rga_timm.data.datasets.market1501 import read_market1501
from rga_timm.evaluation import evaluate


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


@pytest.mark.parametrize(
    "around",
    [
        "market1501/Market-1501-v15.09.15",  # torchreid's
        "Market-1501-v15.09.15",  # fast-reid's
        "market1501",  # torchreid's older one
    ],
)
def test_the_layouts_of_other_projects_are_found_in_their_root(market_root, tmp_path, around):
    expected = create_dataset("market1501", market_root).fingerprint
    datasets = tmp_path / "datasets"
    (datasets / around).parent.mkdir(parents=True)
    market_root.rename(datasets / around)
    (datasets / "cuhk03" / "cuhk03_release").mkdir(parents=True)
    found = create_dataset("market1501", datasets)
    assert found.root == datasets / around
    assert found.fingerprint == expected


@pytest.mark.parametrize(
    ("folder", "renamed", "found"),
    [
        ("bounding_box_train", "train", "bounding_box_test/, query/, train/"),
        ("bounding_box_test", "gallery", "bounding_box_train/, gallery/, query/"),
        ("query", "probe", "bounding_box_test/, bounding_box_train/, probe/"),
    ],
)
def test_a_missing_folder_is_told_with_what_was_expected_and_found(
    market_root, folder, renamed, found
):
    (market_root / folder).rename(market_root / renamed)
    expectation = rf"holds {found}\. As the archive's own layout it lacks {folder}\. Expected"
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
        read_market1501(market_root, "mine").warn_unexpected()
        assert not caplog.messages
        create_dataset("market1501", market_root)
    assert [message.split()[0] for message in caplog.messages] == ["train", "query", "gallery"]
    assert "3 images, 2 ids, 3 cameras" in caplog.messages[0]
    assert "published with 12936 images, 751 ids, 6 cameras" in caplog.messages[0]


# Names of all kinds: of the gallery, of junk, of people, and of nobody knows whom.
DISTRACTORS = ["-1_c3s1_000001_01.jpg", "0000_c1s1_000001_01.jpg", "0002_c4s1_7.JPG", "frame 1.png"]


def write_distractors(folder, names=DISTRACTORS):
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        write_noise(folder / name, seed)
    for stray in ("readme.txt", "Thumbs.db", "._frame 1.png"):
        (folder / stray).write_bytes(b"not an image")


@pytest.mark.parametrize(
    "folder",
    [
        "images",  # as torchreid and fast-reid want it
        "distractors_500k",
        "distractors_500k/images",
        "../distractors_500k",
        "../distractors_500k/images",
    ],
)
def test_every_image_of_the_folder_of_distractors_is_one(market_root, folder):
    write_distractors(market_root / folder)
    plain = create_dataset("market1501", market_root)
    splits = create_dataset("market1501:distractors=true", market_root)
    assert splits.name == "market1501:distractors=true"
    assert splits.train.images == plain.train.images
    assert splits.query.images == plain.query.images
    assert splits.gallery.images[:3] == plain.gallery.images
    assert [image[:3] for image in splits.gallery.images[3:]] == [
        (f"{folder}/{name}", 0, 0) for name in DISTRACTORS
    ]
    for index in range(len(splits.gallery)):
        splits.gallery.open(index).close()


def test_distractors_stay_out_unless_they_are_asked_for(market_root):
    write_distractors(market_root / "images")
    assert len(create_dataset("market1501", market_root).gallery) == 3


def test_a_distractor_is_never_left_out_of_a_ranking(market_root):
    write_distractors(market_root / "images")
    splits = create_dataset("market1501:distractors=true", market_root)
    assert not set(splits.query.camids) & set(splits.gallery.camids[3:])
    # All distractors are nearer to each query than the only right answer.
    query = [[1.0, 0.0]] * len(splits.query)
    gallery = [[0.0, 1.0]] * 3 + [[1.0, 0.0]] * len(DISTRACTORS)
    result = evaluate(
        *(query, splits.query.pids, splits.query.camids),
        *(gallery, splits.gallery.pids, splits.gallery.camids),
    )
    assert result.num_valid_queries == 2
    assert result.cmc[: len(DISTRACTORS)].tolist() == [0] * len(DISTRACTORS)


def test_beside_a_link_is_beside_what_it_links_to(market_root, tmp_path):
    write_distractors(market_root.parent / "distractors_500k")
    link = tmp_path / "elsewhere" / "market1501"
    link.parent.mkdir()
    link.symlink_to(market_root)
    splits = create_dataset("market1501:distractors=true", link)
    assert len(splits.gallery) == 3 + len(DISTRACTORS)
    splits.gallery.open(3).close()


def test_a_folder_without_images_is_passed_over_for_the_next(market_root):
    write_distractors(market_root / "images", names=[])
    write_distractors(market_root / "distractors_500k")
    gallery = create_dataset("market1501:distractors=true", market_root).gallery
    assert gallery.images[-1].path == f"distractors_500k/{DISTRACTORS[-1]}"


def test_distractors_that_are_not_there_are_an_error_that_says_where_they_belong(market_root):
    (market_root / "images").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        create_dataset("market1501:distractors=true", market_root)
    message = str(error.value)
    for folder in (market_root / "images", market_root.parent / "distractors_500k"):
        assert str(folder) in message
    assert f"Unpack the authors' distractors_500k.zip in {market_root}, or" in message


def test_the_published_gallery_is_larger_with_distractors(market_root, caplog):
    write_distractors(market_root / "images")
    published = create_dataset("market1501:distractors=true", market_root).published
    assert published["train"] == Counts(12936, 751, 6)
    assert published["query"] == Counts(3368, 750, 6)
    assert published["gallery"] == Counts(515913, 751)
    assert "7 images, 3 ids, 4 cameras" in caplog.messages[2]
    assert "published with 515913 images, 751 ids." in caplog.messages[2]


def test_a_multi_query_is_all_images_of_a_person_under_a_camera(market_root):
    names = (
        "0002_c1s1_000451_00.jpg",
        "0002_c1s2_000500_00.jpg",
        "0002_c2s1_000451_00.jpg",  # not the query's camera
        "0011_c6s1_000001_00.jpg",
        "0007_c1s1_000451_00.jpg",  # no query's person
    )
    for name in names:
        write_noise(market_root / "gt_bbox" / name)
    splits = create_dataset("market1501:multi_query=true", market_root)
    assert splits.name == "market1501:multi_query=true"
    assert [image[:4] for image in splits.query.images] == [
        ("gt_bbox/0002_c1s1_000451_00.jpg", 2, 1, 0),
        ("gt_bbox/0002_c1s2_000500_00.jpg", 2, 1, 0),
        ("gt_bbox/0011_c6s1_000001_00.jpg", 11, 6, 1),
    ]
    single = create_dataset("market1501", market_root)
    assert splits.gallery.images == single.gallery.images
    assert splits.fingerprint != single.fingerprint


def test_multi_queries_that_are_not_all_there_are_an_error(market_root):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*gt_bbox"):
        create_dataset("market1501:multi_query=true", market_root)
    write_noise(market_root / "gt_bbox" / "0002_c1s1_000451_00.jpg")
    with pytest.raises(
        FileNotFoundError, match="no image for 1 of 2 queries, such as person 11 under camera 6"
    ):
        create_dataset("market1501:multi_query=true", market_root)
