import json

import cuhk03_files
import numpy as np
import pytest
from cuhk03_files import LABELS, TEST_SETS, new_protocol, pictures
from noise_image import write_noise
from scipy.io import loadmat, savemat

from rga_timm.data import create_dataset, dataset_info, partition_specs

CLASSIC = "cuhk03:protocol=classic"


def rows(reader):
    return [(image.path, image.pid, image.camid) for image in reader.images]


def expected_new(boxes, split):
    shots = [pictures(boxes)[index - 1] for index in new_protocol(boxes)[split]]
    return [(f"images_{boxes}/{shot.name}", shot.pid, shot.view) for shot in shots]


def expected_classic(boxes, split, tested):
    people = {LABELS[pair] + person for pair, person in TEST_SETS[split]}
    return [
        (f"images_{boxes}/{shot.name}", shot.pid, shot.view)
        for shot in pictures(boxes)
        if (shot.pid in people) == tested
    ]


@pytest.fixture
def torchreid(tmp_path):
    """torchreid's folder, the archive's own file not in it."""
    root = cuhk03_files.write_torchreid(tmp_path / "cuhk03")
    cuhk03_files.write_new_protocol(root)
    return root


@pytest.fixture
def np_root(tmp_path):
    """CUHK03-NP: png and jpg, as it is about."""
    root = tmp_path / "cuhk03-np"
    names = {
        "bounding_box_train": ["0001_c1_1.png", "0001_c2_6.png", "1467_c2_14096.jpg"],
        "query": ["0003_c1_22.png", "0003_c2_27.png"],
        "bounding_box_test": ["0003_c1_21.jpg", "0003_c2_26.png"],
    }
    for boxes in ("labeled", "detected"):
        for folder, files in names.items():
            for name in files[boxes == "labeled" and folder == "bounding_box_train" :]:
                write_noise(root / boxes / folder / name)
    return root


@pytest.fixture
def pair_root(tmp_path):
    """The first pair of cameras as folders; people from 0 in each."""
    root = tmp_path / "pair"
    for name in (
        "train/0000_00.jpg",
        "train/0000_05.jpg",
        "train/0742_04.jpg",
        "train/0742_09.jpg",
    ):
        write_noise(root / "detected" / name)
    for name in ("val/0000_04.jpg", "val/0000_05.jpg", "val/0099_00.jpg", "val/0099_06.jpg"):
        write_noise(root / "detected" / name)
    write_noise(root / "detected" / "train_resized" / "0000_00.jpg")
    (root / "detected" / "resize.py").touch()
    return root


@pytest.mark.parametrize("boxes", ["detected", "labeled"])
def test_the_new_protocol_is_that_of_its_list_whose_indices_count_from_one(torchreid, boxes):
    splits = create_dataset("cuhk03", torchreid, boxes=boxes)
    for split, reader in splits.readers.items():
        assert rows(reader) == expected_new(boxes, split)
        assert len(reader) > 0
    assert not splits.single_gallery_shot
    assert splits.same_numbering
    assert splits.shared_pids() == []


@pytest.mark.parametrize("boxes", ["detected", "labeled"])
@pytest.mark.parametrize("split", [0, 1, 19])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_the_classic_protocol_takes_file_names_from_torchreids_lists_and_no_paths(
    tmp_path, boxes, split, separator
):
    cuhk03_files.write_torchreid(tmp_path, separator)
    splits = create_dataset(f"{CLASSIC},split={split}", tmp_path, boxes=boxes)
    assert rows(splits.train) == expected_classic(boxes, split, tested=False)
    assert rows(splits.query) == expected_classic(boxes, split, tested=True)
    assert rows(splits.gallery) == rows(splits.query)
    assert splits.single_gallery_shot
    assert len(set(splits.query.pids.tolist())) == 3
    assert splits.shared_pids() == []


def test_detected_boxes_and_the_new_protocol_are_the_default(torchreid):
    given = create_dataset("cuhk03:protocol=new,boxes=detected,split=0", torchreid)
    assert create_dataset("cuhk03", torchreid).fingerprint == given.fingerprint
    assert given.name == "cuhk03"
    other = create_dataset("cuhk03:boxes=labeled", torchreid)
    assert other.name == "cuhk03:boxes=labeled"
    assert other.fingerprint != given.fingerprint


def test_the_counts_to_compare_with_are_those_of_the_protocol_and_boxes(torchreid):
    # Zhong et al., README of their repository: training, query, gallery.
    for boxes, images in (("labeled", [7368, 1400, 5328]), ("detected", [7365, 1400, 5332])):
        published = create_dataset("cuhk03", torchreid, boxes=boxes).published
        assert [count.images for count in published.values()] == images
        assert [count.ids for count in published.values()] == [767, 700, 700]
    assert create_dataset(CLASSIC, torchreid).published == {}
    assert dataset_info("cuhk03").published["train"].images == 7365


def test_the_new_protocol_may_lie_in_the_folder_above(torchreid):
    for name in ("detected", "labeled"):
        config = f"cuhk03_new_protocol_config_{name}.mat"
        (torchreid / config).rename(torchreid.parent / config)
    splits = create_dataset("cuhk03", torchreid)
    assert rows(splits.query) == expected_new("detected", "query")


def test_without_the_new_protocols_list_one_is_told_where_to_get_it(torchreid):
    (torchreid / "cuhk03_new_protocol_config_detected.mat").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"config_detected\.mat is neither in .*zhunzhong07/person-re-rank"
    ):
        create_dataset("cuhk03", torchreid)
    create_dataset("cuhk03:boxes=labeled", torchreid)


def test_images_that_a_list_names_and_that_are_missing_are_told(torchreid):
    person = "1_001_1"  # trained on in the new protocol and in the classic one
    for number in ("01", "02"):
        (torchreid / "images_detected" / f"{person}_{number}.png").unlink()
    for spec, file in (("cuhk03", "config_detected.mat"), (CLASSIC, "classic_detected.json")):
        with pytest.raises(FileNotFoundError, match=rf"{file} names 1_001_1_01\.png.* 1 others"):
            create_dataset(spec, torchreid)


def test_images_may_have_been_saved_in_another_format(torchreid):
    for path in (torchreid / "images_detected").iterdir():
        path.rename(path.with_suffix(".jpg"))
    for spec in ("cuhk03", CLASSIC):
        assert create_dataset(spec, torchreid).query.images[0].path.endswith(".jpg")


@pytest.mark.parametrize(
    "name",
    [
        "6_001_1_01.png",  # no such pair
        "5_050_1_01.png",  # no such person
        "1_001_2_01.png",  # image 1 is from view 1
        "1_001_2_11.png",
        "1_000_1_01.png",
        "0001_c1_1.png",
        "notes.md",
    ],
)
def test_other_names_are_an_error(torchreid, name):
    (torchreid / "images_detected" / name).touch()
    with pytest.raises(
        ValueError, match=rf"images_detected: '{name}' is not a file name of CUHK03"
    ):
        create_dataset("cuhk03", torchreid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            b"<!DOCTYPE html>\n" * 99,
            "is not a MATLAB file of version 4 to 7: is it cut off, or a web page",
        ),
        (b"", "is not a MATLAB file of version 4 to 7"),
        ("cut off", "is not a MATLAB file of version 4 to 7"),
        ({"labels": np.array([["one"]])}, "is not CUHK03's new protocol"),
        ({"labels": None}, r"holds no labels, but camId"),
        ({"labels": [[1], [2]]}, r"names in filelist, but 2 labels"),
        ({"query_idx": [[1], [0]]}, r"query_idx holds 0, not a number from 1 to \d+"),
        ({"gallery_idx": [[9999]]}, r"gallery_idx holds 9999, not a number from 1 to"),
        ({"train_idx": []}, r"train_idx is empty"),
        ({"filelist": "0001_c1_1.png"}, r"filelist 1: '0001_c1_1.png' is not a file name"),
    ],
)
def test_a_wrong_list_of_the_new_protocol_is_an_error(torchreid, change, message):
    path = torchreid / "cuhk03_new_protocol_config_detected.mat"
    if change == "cut off":
        path.write_bytes(path.read_bytes()[:400])
    elif isinstance(change, bytes):
        path.write_bytes(change)
    else:
        content = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
        if "filelist" in change:
            content["filelist"][0, 0] = change["filelist"]
        else:
            content.update(change)
        savemat(path, {key: value for key, value in content.items() if value is not None})
    with pytest.raises(ValueError, match=message):
        create_dataset("cuhk03", torchreid)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>", "is not a JSON file"),
        ("{}", "does not hold split 0 as torchreid writes it"),
        ('[{"train": [], "query": [["a/b.png", 0, 0]]}]', r"'b\.png' is not a file name of CUHK03"),
        ('[{"train": [1], "query": []}]', "does not hold split 0"),
        ("[]", "does not hold split 0"),
    ],
)
def test_a_wrong_list_of_the_classic_protocol_is_an_error(torchreid, text, message):
    (torchreid / "splits_classic_detected.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        create_dataset(CLASSIC, torchreid)


def test_a_list_with_nobody_to_test_on_is_an_error(torchreid):
    path = torchreid / "splits_classic_detected.json"
    splits = json.loads(path.read_text())
    path.write_text(json.dumps([{**splits[0], "query": []}]))
    with pytest.raises(FileNotFoundError, match="images to train and 0 to test"):
        create_dataset(CLASSIC, torchreid)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cuhk03:split=1", "protocol=new has one split: split=1 needs protocol=classic"),
        (f"{CLASSIC},split=20", "split 20 is not one of the 20 partitions"),
    ],
)
def test_options_that_do_not_go_together_are_an_error(torchreid, spec, message):
    with pytest.raises(ValueError, match=message):
        create_dataset(spec, torchreid)


def test_there_are_twenty_partitions():
    specs = partition_specs(f"{CLASSIC},split=all")
    assert specs == [f"{CLASSIC},split={split}" for split in range(20)]


def test_cuhk03_np_is_the_new_protocol_by_its_names(np_root):
    splits = create_dataset("cuhk03", np_root)
    folder = "detected/bounding_box_train"
    assert rows(splits.train) == [
        (f"{folder}/0001_c1_1.png", 1, 1),
        (f"{folder}/0001_c2_6.png", 1, 2),
        (f"{folder}/1467_c2_14096.jpg", 1467, 2),
    ]
    assert rows(splits.query) == [
        ("detected/query/0003_c1_22.png", 3, 1),
        ("detected/query/0003_c2_27.png", 3, 2),
    ]
    assert [image.path for image in splits.gallery.images] == [
        "detected/bounding_box_test/0003_c1_21.jpg",
        "detected/bounding_box_test/0003_c2_26.png",
    ]
    assert not splits.single_gallery_shot
    assert splits.published["gallery"].images == 5332
    labeled = create_dataset("cuhk03:boxes=labeled", np_root)
    assert labeled.train.pids.tolist() == [1, 1467]
    assert labeled.published["gallery"].images == 5328
    assert create_dataset("cuhk03", np_root / "detected").fingerprint == splits.fingerprint


def test_cuhk03_np_has_no_classic_protocol(np_root):
    with pytest.raises(ValueError, match="CUHK03-NP's layout, which has protocol=new only"):
        create_dataset(CLASSIC, np_root)


def test_a_foreign_or_no_name_in_cuhk03_np_is_an_error(np_root):
    folder = np_root / "detected" / "query"
    (folder / "0001_c3_1.png").touch()  # there are two views
    with pytest.raises(ValueError, match=r"0001_c3_1\.png is not named as in CUHK03"):
        create_dataset("cuhk03", np_root)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="query holds no images"):
        create_dataset("cuhk03", np_root)


def test_the_first_pair_of_cameras_is_tested_on_all_of_val(pair_root):
    splits = create_dataset(CLASSIC, pair_root)
    assert rows(splits.train) == [
        ("detected/train/0000_00.jpg", 0, 1),
        ("detected/train/0000_05.jpg", 0, 2),
        ("detected/train/0742_04.jpg", 742, 1),
        ("detected/train/0742_09.jpg", 742, 2),
    ]
    assert rows(splits.query) == rows(splits.gallery)
    assert rows(splits.query) == [
        ("detected/val/0000_04.jpg", 0, 1),
        ("detected/val/0000_05.jpg", 0, 2),
        ("detected/val/0099_00.jpg", 99, 1),
        ("detected/val/0099_06.jpg", 99, 2),
    ]
    assert splits.single_gallery_shot
    assert not splits.same_numbering
    assert splits.published == {}


def test_the_first_pair_of_cameras_has_one_classic_partition(pair_root):
    with pytest.raises(ValueError, match="which has protocol=classic only, not protocol=new"):
        create_dataset("cuhk03", pair_root)
    with pytest.raises(ValueError, match="which has no split=3, only 0"):
        create_dataset(f"{CLASSIC},split=3", pair_root)
    with pytest.raises(FileNotFoundError, match="labeled/train, labeled/val"):
        create_dataset(f"{CLASSIC},boxes=labeled", pair_root)


def test_a_folder_with_nothing_of_it_is_an_error_that_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"images_detected.*CUHK03-NP's.*cuhk-03\.mat"):
        create_dataset("cuhk03", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"cuhk03_test_sets\.json.*cuhk-03\.mat"):
        create_dataset(CLASSIC, tmp_path)
