from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rga_timm.data import ReidSplits
from rga_timm.data.identity_split import IdentitySplit
from rga_timm.data.named_images import NamedImage, number_names, splits_from_names
from rga_timm.evaluation import check_testable, evaluate


def image(path: str, identity: str, **fields) -> NamedImage:
    return NamedImage(f"list:{path}", path, identity, **fields)


def made(images: list[NamedImage], tmp_path: Path = Path("nowhere"), **options) -> ReidSplits:
    by_identity = IdentitySplit(tmp_path / "split.csv", **options)
    return splits_from_names("mine", tmp_path, images, by_identity)


def test_whole_numbers_stay_and_other_names_are_ranked_from_1():
    assert number_names("x", ["10", "9", "-1", "007", "9"]) == {
        "10": 10,
        "9": 9,
        "-1": -1,
        "007": 7,
    }
    assert number_names("x", ["b", "10", "a", "9"]) == {"10": 1, "9": 2, "a": 3, "b": 4}
    assert number_names("x", ["1_0", "٣", "1" * 19]) == {"1" * 19: 1, "1_0": 2, "٣": 3}
    assert number_names("x", []) == {}


def test_names_of_the_same_number_are_an_error():
    with pytest.raises(ValueError, match="the cameras '007' and '7' are different names of the"):
        number_names("cameras", ["7", "8", "007"])


@given(st.sets(st.text(max_size=3)))
def test_numbers_are_distinct_and_do_not_depend_on_the_order(names):
    numbers = number_names("x", names)
    assert number_names("x", sorted(names, reverse=True)) == numbers
    assert len(set(numbers.values())) == len(names)


def test_a_test_image_is_a_query_and_a_gallery_image_with_the_same_camera():
    splits = made([image(p, i, split="test") for p, i in [("b", "x"), ("a", "x"), ("c", "y")]])
    assert not splits.has_cameras
    assert splits.query.images == splits.gallery.images
    assert [i[:3] for i in splits.query.images] == [("b", 1, 2), ("a", 1, 1), ("c", 2, 3)]
    assert not len(splits.train)


def test_without_cameras_boxes_of_one_file_are_images_of_their_own():
    boxes = [(0, 0, 2, 2), (2, 0, 4, 2), None]
    images = [image("a", "x", split=s, box=box) for box in boxes for s in ("query", "gallery")]
    splits = made(images)
    assert len(set(splits.query.camids)) == 3
    assert splits.query.camids.tolist() == splits.gallery.camids.tolist()


def test_without_cameras_a_tracklet_is_left_out_as_a_whole():
    images = [image(f"{t}{i}", "x", split="test", tracklet=t) for t in "ab" for i in range(2)]
    # The names of tracklets may start anew in another split: this is not the query's tracklet a.
    images += [image(f"g{i}", "x", split="train", tracklet="a") for i in range(2)]
    splits = made(images)
    assert splits.query.camids.tolist() == splits.gallery.camids.tolist() == [1, 1, 2, 2]
    assert splits.query.tracklets.tolist() == [1, 1, 2, 2]
    assert splits.train.camids.tolist() == [3, 3]


def test_cameras_are_numbered_over_all_splits():
    names = [("a", "door", "train"), ("b", "hall", "test"), ("c", "attic", "test")]
    splits = made([image(p, "x", camera=camera, split=split) for p, camera, split in names])
    assert splits.has_cameras
    assert splits.train.camids.tolist() == [2]
    assert splits.query.camids.tolist() == [3, 1]


def test_a_person_has_one_number_in_all_splits():
    images = [image("a", "z", split="train"), image("b", "k", split="train")]
    images += [image(p, "z", split="test") for p in "cd"]
    splits = made(images)
    assert splits.train.pids.tolist() == [2, 1]
    assert splits.query.pids.tolist() == [2, 2]
    assert splits.shared_pids() == [2]


def test_validation_images_are_tested_on_unless_there_are_test_images(caplog):
    images = [image(f"v{i}", "x", split="val") for i in range(2)]
    assert len(made(images).query) == 2
    assert not caplog.messages
    splits = made([*images, *(image(f"t{i}", "x", split="test") for i in range(3))])
    assert {i.path for i in splits.query.images} == {"t0", "t1", "t2"}
    assert "the 2 images of val are left out" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"camera": None}, "list:b has no camera, as 1 of 3 images, and list:a has one"),
        ({"tracklet": None}, "list:b has no tracklet, as 1 of 3"),
        ({"identity": "y"}, "the tracklet 't' is of two people: see list:a and list:b"),
        ({"camera": "2"}, "the tracklet 't' is of two cameras: see list:a and list:b"),
    ],
)
def test_what_does_not_fit_together_is_an_error_that_names_both(changed, message):
    images = [image(p, "x", camera="1", tracklet="t", split="train") for p in "abc"]
    images[1] = images[1]._replace(**changed)
    with pytest.raises(ValueError, match=message):
        made(images)


@pytest.mark.parametrize(("there", "lacking"), [("query", "gallery"), ("gallery", "queries")])
def test_queries_and_gallery_need_one_another(there, lacking):
    with pytest.raises(ValueError, match=f"but no {lacking}: give both"):
        made([image("a", "x", split=there)])


def test_a_test_split_without_any_match_cannot_be_tested_on():
    for images, reason in (
        ([image(p, p, split="test") for p in "abc"], "of 3 is in the gallery only as the query"),
        ([image(p, "x", camera="1", split="test") for p in "abc"], "all .* are of camera 1"),
    ):
        with pytest.raises(ValueError, match=f"mine cannot be tested on: no query .*{reason}"):
            check_testable([made(images)])


def test_options_for_a_split_are_an_error_where_there_is_one():
    images = [image(p, "x", split="test") for p in "ab"]
    for option in ({"seed": 1}, {"test_share": 0.3}, {"split_file": "x.csv"}):
        with pytest.raises(ValueError, match=r"mine is split already \(test\)"):
            made(images, **option)


def test_without_a_split_people_are_split_by_their_names(tmp_path):
    images = [image(f"{p}{i}", p) for p in "abcdef" for i in range(2)]
    splits = made(images, tmp_path, seed=2)
    sides = dict(line.split(",") for line in (tmp_path / "split.csv").read_text().splitlines())
    assert [i.path[0] for i in splits.train.images] == [
        i.identity for i in images if sides[i.identity] == "train"
    ]
    assert splits.query.images == splits.gallery.images
    assert not splits.shared_pids()
    assert len(splits.train) + len(splits.query) == 12


def test_without_cameras_evaluation_leaves_out_the_query_alone():
    people = ["anna"] * 3 + ["ben"] * 2 + ["carl"]  # carl is seen once: nobody looks for him
    splits = made([image(str(i), p, split="test") for i, p in enumerate(people)])
    assert splits.matches[:3] == (5, 0, 1)
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    query, gallery = splits.query, splits.gallery
    result = evaluate(
        *(features, query.pids, query.camids), *(features, gallery.pids, gallery.camids)
    )

    precisions, firsts = [], []
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for i in range(5):
        others = [j for j in np.argsort(-unit @ unit[i]) if j != i]
        hits = [rank for rank, j in enumerate(others, 1) if people[j] == people[i]]
        precisions.append(np.mean([n / rank for n, rank in enumerate(hits, 1)]))
        firsts.append(hits[0])
    assert result.num_valid_queries == 5
    assert result.mAP == pytest.approx(np.mean(precisions))
    assert result.first_match_rank.tolist() == [*firsts, -1]
