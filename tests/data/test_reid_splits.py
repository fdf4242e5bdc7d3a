import hashlib
import logging
from pathlib import Path

from rga_timm.data import Counts, ReidImage, ReidSplits

IMAGES = [ReidImage("a/30.png", 30, 2), ReidImage("a/4.png", 4, 1), ReidImage("b/30.png", 30, 1)]


def splits(train: list[ReidImage], root: Path = Path("unused"), **attributes) -> ReidSplits:
    return ReidSplits.from_images(
        "x", root, train=train, query=IMAGES[:1], gallery=IMAGES[1:], **attributes
    )


def test_labels_follow_the_sorted_pids_whatever_the_order_of_the_images():
    for images in (IMAGES, IMAGES[::-1]):
        made = splits(images)
        assert made.classes == [4, 30]
        assert [made.classes[label] for label in made.train.labels] == made.train.pids.tolist()


def test_describe_counts_images_ids_and_cameras_in_plain_types():
    description = splits(IMAGES).describe()
    assert description["train"] == {"images": 3, "ids": 2, "cameras": 2}
    assert description["query"] == {"images": 1, "ids": 1, "cameras": 1}
    assert {type(count) for count in description["train"].values()} == {int}


def test_the_fingerprint_is_the_hash_of_the_sorted_lines():
    lines = "gallery a/4.png 4 1\ngallery b/30.png 30 1\nquery a/30.png 30 2\ntrain a/4.png 4 1\n"
    assert splits(IMAGES[1:2]).fingerprint == hashlib.sha256(lines.encode()).hexdigest()


def test_the_fingerprint_ignores_order_and_place_and_notices_everything_else():
    original = splits(IMAGES).fingerprint
    assert splits(IMAGES[::-1], Path("elsewhere")).fingerprint == original
    first, *rest = IMAGES
    changed = [first._replace(path="z"), first._replace(pid=5), first._replace(camid=5)]
    others = {splits([image, *rest]).fingerprint for image in changed}
    assert len({original, *others, splits(rest).fingerprint}) == 5
    second = [first._replace(tracklet=1), first._replace(box=(0, 0, 4, 4))]
    assert len({original, *(splits([image, *rest]).fingerprint for image in second)}) == 3


def test_the_test_fingerprint_is_of_queries_and_gallery_alone():
    lines = "gallery a/4.png 4 1\ngallery b/30.png 30 1\nquery a/30.png 30 2\n"
    expected = hashlib.sha256(lines.encode()).hexdigest()
    for train in (IMAGES, IMAGES[1:2], []):
        made = splits(train)
        assert made.test_fingerprint == made.describe()["test_fingerprint"] == expected
    assert splits([]).fingerprint == expected


def test_tracklets_are_counted_and_cameras_that_are_not_known_are_not():
    images = [image._replace(tracklet=image.pid) for image in IMAGES]
    assert splits(images).describe()["train"] == {
        "images": 3,
        "ids": 2,
        "cameras": 2,
        "tracklets": 2,
    }
    assert splits(IMAGES, has_cameras=False).counts["train"] == Counts(3, 2, None)


def test_counts_agree_where_nothing_else_was_published():
    assert Counts(3, 2, 2).agrees(Counts(3, 2))
    assert Counts(3, 2, 2).agrees(Counts(3, 2, 2))
    assert not Counts(3, 2, 2).agrees(Counts(3, 2, 1))
    assert not Counts(3, 2, 2).agrees(Counts(3, 2, 2, 9))
    assert str(Counts(3, 2, 2, 9)) == "3 images, 2 ids, 2 cameras, 9 tracklets"


def test_a_data_set_may_be_there_to_be_tested_on_only():
    made = splits([])
    assert made.classes == []
    assert made.describe()["train"] == {"images": 0, "ids": 0, "cameras": 0}
    assert not made.train.has_tracklets


def test_classes_stay_when_images_are_left_out():
    assert ReidSplits("x", Path(), *[splits(IMAGES).train.without([1])] * 3).classes == [4, 30]


def test_counts_other_than_the_published_ones_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        splits(
            IMAGES[:1], published={"query": Counts(1, 1)}, same_numbering=False
        ).warn_unexpected()
        assert not caplog.messages
        splits(IMAGES, published={"query": Counts(2, 1)}, same_numbering=False).warn_unexpected()
    (message,) = caplog.messages
    assert message.startswith(
        "query of unused has 1 images, 1 ids, 1 cameras; x was published with 2"
    )


def test_people_in_both_train_and_test_are_warned_of_but_distractors_are_not(caplog):
    distractor = ReidImage("c/0.png", 0, 1)
    both = {"query": IMAGES[:1], "gallery": [distractor], "root": Path("data")}
    ReidSplits.from_images("x", train=[distractor, IMAGES[1]], **both).warn_unexpected()
    assert not caplog.messages
    ReidSplits.from_images("x", train=IMAGES, **both).warn_unexpected()
    assert "1 of 2 train ids are in query or gallery too (such as 30)" in caplog.messages[0]
    assert len(caplog.messages) == 1


def test_people_are_not_compared_where_test_pids_start_again():
    assert splits(IMAGES).shared_pids() == [4, 30]
    assert splits(IMAGES, same_numbering=False).shared_pids() == []
