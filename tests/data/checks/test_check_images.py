from pathlib import Path

import pytest
from noise_image import write_noise
from PIL import Image

from rga_timm.data import ReidImage, ReidSplits
from rga_timm.data.checks import Finding, check_images, inspect_images


def findings_of(splits: ReidSplits, hashes: bool = True) -> dict[str, Finding]:
    facts = {
        split: inspect_images(reader, workers=0, hashes=hashes)
        for split, reader in splits.readers.items()
    }
    return {finding.kind: finding for finding in check_images(splits, facts)}


class Set:
    """A data set of noise; images of the same seed are the same."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: dict[str, list[ReidImage]] = {"train": [], "query": [], "gallery": []}

    def add(self, split: str, pid: int, camid: int, seed: int) -> Path:
        path = f"{split}_{len(self.images[split])}.png"
        write_noise(self.root / path, seed)
        self.images[split].append(ReidImage(path, pid, camid))
        return self.root / path

    def read(self, **attributes) -> ReidSplits:
        return ReidSplits.from_images("x", self.root, **self.images, **attributes)


@pytest.fixture
def clean(tmp_path: Path) -> Set:
    made = Set(tmp_path)
    for seed, split in enumerate(("train", "query", "gallery")):
        pid = 1 if split == "train" else 2
        made.add(split, pid, 1, 10 * seed)
        made.add(split, pid, 2, 10 * seed + 1)
    return made


def test_different_readable_images_give_no_findings(clean: Set) -> None:
    assert findings_of(clean.read()) == {}


def test_unreadable_and_tiny_images_are_found_in_their_splits(clean: Set) -> None:
    clean.add("query", 2, 3, 100).write_bytes(b"")
    with Image.open(clean.root / "gallery_0.png") as image:
        image.crop((0, 0, 15, 32)).save(clean.root / "gallery_0.png")
    found = findings_of(clean.read())
    assert {kind: finding.level for kind, finding in found.items()} == {
        "unreadable": "error",
        "tiny": "warning",
    }
    assert found["unreadable"].items == [
        {"split": "query", "path": "query_2.png", "why": "the file is empty (0 bytes)"}
    ]
    assert found["tiny"].items == [{"split": "gallery", "path": "gallery_0.png", "size": "15x32"}]


def test_the_same_image_under_two_identities_is_found(clean: Set) -> None:
    clean.add("train", 7, 1, 0)
    found = findings_of(clean.read())
    assert list(found) == ["two_identities"]
    assert found["two_identities"].items == [
        {
            "images": [
                "train_0.png (train, pid 1, camera 1)",
                "train_2.png (train, pid 7, camera 1)",
            ]
        }
    ]
    assert findings_of(clean.read(), hashes=False) == {}


@pytest.mark.parametrize("same_numbering", [True, False])
def test_the_same_image_in_train_and_test_is_found_and_is_two_people_only_if_pids_say_so(
    clean: Set, same_numbering: bool
) -> None:
    clean.add("train", 9, 1, 20)  # the gallery's first, pid 2
    found = findings_of(clean.read(same_numbering=same_numbering))
    expected = {"two_identities", "train_and_test"} if same_numbering else {"train_and_test"}
    assert set(found) == expected
    assert len(found["train_and_test"].items) == 1


def test_two_people_within_a_split_are_found_where_test_pids_start_again(clean: Set) -> None:
    clean.add("gallery", 3, 1, 20)
    assert list(findings_of(clean.read(same_numbering=False))) == ["two_identities"]


def test_a_query_in_the_gallery_counts_only_under_another_camera(clean: Set) -> None:
    clean.add("gallery", 2, 1, 10)  # the first query under its own camera
    assert findings_of(clean.read()) == {}
    clean.add("gallery", 2, 5, 10)
    assert set(findings_of(clean.read())) == {"query_in_gallery", "twice"}
    clean.images["gallery"].pop(2)
    assert set(findings_of(clean.read())) == {"query_in_gallery"}


def test_the_same_image_twice_under_one_identity_is_noted(clean: Set) -> None:
    clean.add("train", 1, 5, 0)
    found = findings_of(clean.read())
    assert list(found) == ["twice"]
    assert found["twice"].level == "note"


def test_a_part_of_the_facts_will_do(clean: Set) -> None:
    clean.add("train", 7, 1, 0)
    splits = clean.read()
    facts = list(inspect_images(splits.train, workers=0))
    assert check_images(splits, {"train": facts[:2]}) == []
    assert [finding.kind for finding in check_images(splits, {"train": facts})] == [
        "two_identities"
    ]
