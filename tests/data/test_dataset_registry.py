from pathlib import Path
from typing import Literal

import pytest

from rga_timm.data import (
    Counts,
    ReidImage,
    ReidSplits,
    create_dataset,
    list_datasets,
    parse_spec,
    partition_specs,
    register_dataset,
    registry,
)


@pytest.fixture
def mine(monkeypatch) -> list[tuple[Path | None, dict[str, object]]]:
    """The calls of a data set `mine`, which is registered alone."""
    monkeypatch.setattr(registry, "_datasets", {})
    calls: list[tuple[Path | None, dict[str, object]]] = []

    @register_dataset("mine", title="Mine", partitions=3)
    def factory(
        root: Path | None,
        *,
        split: int = 0,
        boxes: Literal["labeled", "detected"] = "labeled",
        distractors: bool = False,
        share: float = 0.5,
        column: str | None = "id",
        images: str | None = None,
    ) -> ReidSplits:
        calls.append((root, {k: v for k, v in locals().items() if k not in ("root", "calls")}))
        return ReidSplits.from_images("mine", Path("."), train=[ReidImage("a.jpg", 1, 1)])

    return calls


def test_the_data_sets_of_the_package_are_listed():
    assert {"market1501", "pedestrians"} <= set(list_datasets())
    assert list_datasets() == sorted(list_datasets())


def test_an_unknown_name_is_answered_with_close_ones_and_all():
    with pytest.raises(ValueError, match=r"'Market1502'.*mean 'market1501'.*pedestrians"):
        create_dataset("Market1502", "somewhere")
    with pytest.raises(ValueError, match=r"'imagenet': The known ones"):
        create_dataset("imagenet", "somewhere")


@pytest.mark.parametrize(
    "name", ["duke", "DukeMTMC-reID", "dukemtmcreid", "dukemtmc:split=1", "Duke MTMC"]
)
def test_who_asks_for_dukemtmc_is_told_why_it_is_not_there(name):
    with pytest.raises(ValueError, match=r"withdrawn by its authors in 2019.*without being asked"):
        create_dataset(name, "somewhere")


def test_a_registered_data_set_is_made_with_its_root(mine):
    assert list_datasets() == ["mine"]
    for root, expected in ((None, None), ("a/b", Path("a/b")), ("~/b", Path.home() / "b")):
        create_dataset("mine", root)
        assert mine.pop()[0] == expected


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="'market1501' is registered already"):
        register_dataset("market1501")(lambda root: root)


def test_options_come_from_the_spec_in_their_types_and_arguments_win_over_it(mine):
    spec = "mine:split=2,boxes=detected,distractors=True,share=.25,column=none"
    expected = {
        "split": 2,
        "boxes": "detected",
        "distractors": True,
        "share": 0.25,
        "column": None,
        "images": None,
    }
    assert {**parse_spec(spec)[1], "images": None} == expected
    create_dataset(spec)
    assert mine[-1][1] == expected
    create_dataset(spec, split=1, column="who")
    assert mine[-1][1] == {**expected, "split": 1, "column": "who"}


def test_the_name_says_which_options_are_not_the_defaults(mine):
    assert create_dataset("mine:split=0,distractors=false").name == "mine"
    assert create_dataset("mine:split=1", distractors=True).name == "mine:distractors=true,split=1"
    assert create_dataset("mine:images=/home/me/images,split=1").name == "mine:split=1"
    assert mine[-1][1]["images"] == "/home/me/images"
    assert parse_spec("mine:distractors=true,split=1")[1] == {"distractors": True, "split": 1}


def test_the_name_says_which_options_the_data_set_found_out_by_itself(monkeypatch):
    monkeypatch.setattr(registry, "_datasets", {})

    @register_dataset("mine")
    def factory(
        root: Path | None, *, val: bool = False, version: Literal["v1", "v2"] | None = None
    ) -> ReidSplits:
        return ReidSplits.from_images("mine:version=v2", Path("."))

    for spec, name in (
        ("mine", "mine:version=v2"),
        ("mine:version=v2", "mine:version=v2"),
        ("mine:val=true", "mine:val=true,version=v2"),
        ("mine:version=v2,val=true", "mine:val=true,version=v2"),
    ):
        assert create_dataset(spec).name == name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine:split", "'split' is not OPTION=VALUE. Its options are split=0, boxes=labeled"),
        ("mine:fold=1", "mine has no option 'fold'. Its options are split=0"),
        ("mine:split=1,split=2", "split is given twice"),
        ("mine:split=one", "split is a whole number, not 'one'"),
        ("mine:share=half", "share is a number, not 'half'"),
        ("mine:distractors=yes", "distractors is true or false, not 'yes'"),
        ("mine:boxes=drawn", "boxes is one of labeled, detected, not 'drawn'"),
        ("mine:split=3", "split 3 is not one of the 3 partitions of Mine, 0 to 2"),
        ("mine:split=-1", "split -1 is not one of the 3 partitions"),
    ],
)
def test_a_wrong_option_is_an_error_that_says_what_it_can_be(mine, spec, message):
    with pytest.raises(ValueError, match=message):
        create_dataset(spec)
    assert not mine


def test_an_unknown_argument_is_an_error_too(mine):
    with pytest.raises(ValueError, match="mine has no option 'fold'"):
        create_dataset("mine", fold=1)
    with pytest.raises(ValueError, match="boxes of mine is one of labeled, detected, not 'drawn'"):
        create_dataset("mine", boxes="drawn")
    create_dataset("mine", boxes="detected", column=None)


def test_all_partitions_of_a_spec(mine):
    assert partition_specs("mine") == ["mine"]
    assert partition_specs("mine:split=1") == ["mine:split=1"]
    assert partition_specs("mine:boxes=detected,split=all") == [
        f"mine:boxes=detected,split={i}" for i in range(3)
    ]
    register_dataset("whole")(lambda root: root)
    with pytest.raises(ValueError, match="whole has no partitions"):
        partition_specs("whole:split=all")


def test_published_counts_are_the_data_set_s_own_or_those_of_its_registration(monkeypatch, caplog):
    monkeypatch.setattr(registry, "_datasets", {})
    counts = {"query": Counts(1, 1)}
    for name, own in (("usual", None), ("unusual", {})):
        made = ReidSplits.from_images(name, Path("."), published=own)
        register_dataset(name, published=counts)(lambda root, made=made: made)
    assert create_dataset("usual").published == counts
    assert len(caplog.messages) == 1
    assert create_dataset("unusual").published == {}
    assert len(caplog.messages) == 1
