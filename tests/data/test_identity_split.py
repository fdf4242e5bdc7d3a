import hashlib
import logging
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rga_timm.data import identity_split
from rga_timm.data.identity_split import IdentitySplit, read_identity_split, split_identities

NAMES = [f"person {i}" for i in range(10)]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["identity,split", *lines]) + "\n")
    return path


def test_those_with_the_smallest_hashes_are_tested_on():
    hashes = {name: hashlib.sha256(f"7 {name}".encode()).hexdigest() for name in NAMES}
    expected = set(sorted(NAMES, key=hashes.get)[:3])
    drawn = split_identities(NAMES, 0.3, 7)
    assert {name for name, side in drawn.items() if side == "test"} == expected
    assert drawn != split_identities(NAMES, 0.3, 8)


@given(
    st.sets(st.text(st.characters(codec="utf-8")), min_size=4, max_size=30).flatmap(
        lambda names: st.tuples(st.just(sorted(names)), st.permutations(sorted(names)))
    ),
    st.integers(),
)
def test_the_random_split_ignores_order_and_repetition_and_has_its_share(names, seed):
    in_order, shuffled = names
    drawn = split_identities(in_order, 0.5, seed)
    assert split_identities(shuffled + shuffled[:2], 0.5, seed) == drawn
    assert sorted(drawn) == in_order
    assert list(drawn.values()).count("test") == round(len(in_order) / 2)


def test_the_first_split_is_kept_as_plain_csv(tmp_path, caplog):
    split = IdentitySplit(tmp_path / "kept.csv", seed=3)
    with caplog.at_level(logging.INFO):
        drawn = split.apply(NAMES[::-1])
    assert drawn == split_identities(NAMES, 0.5, 3)
    lines = [f"{name},{drawn[name]}" for name in NAMES]
    assert split.file.read_text() == "\n".join(["identity,split", *lines]) + "\n"
    assert os.listdir(tmp_path) == ["kept.csv"]
    (message,) = caplog.messages
    assert message == (
        f"split by identity, kept from now on in {split.file}: 5 identities to train and 5 to "
        "test on"
    )


# What a folder may be called: no NUL.
@given(st.sets(st.text(st.characters(codec="utf-8", min_codepoint=1)), min_size=4, max_size=6))
def test_names_of_any_text_come_back_from_the_file(tmp_path_factory, names):
    split = IdentitySplit(tmp_path_factory.mktemp("split") / "kept.csv")
    assert split.apply(names) == split.apply(names) == read_identity_split(split.file)


def test_names_that_are_no_valid_text_are_kept_too(tmp_path):
    names = [os.fsdecode(bytes([0xFF, letter])) for letter in b"abcd"]
    split = IdentitySplit(tmp_path / "kept.csv")
    assert split.apply(names) == split.apply(names)
    assert b"\xffa,t" in split.file.read_bytes()


def test_the_file_wins_over_the_options_and_says_so(tmp_path, caplog):
    sides = ["train", "train", "test", "test"]
    lines = [f"{name},{side}" for name, side in zip("dcba", sides, strict=True)]
    file = write(tmp_path / "kept.csv", *lines)
    expected = {"a": "test", "b": "test", "c": "train", "d": "train"}
    assert split_identities("abcd", 0.5, 5) != expected
    with caplog.at_level(logging.INFO):
        assert IdentitySplit(file).apply("abcd") == expected
        assert [record.levelname for record in caplog.records] == ["INFO"]
        assert IdentitySplit(file, seed=5).apply("abcd") == expected
        assert "is not what test_share=0.5 and seed=5 would give" in caplog.messages[1]
        assert IdentitySplit(file, test_share=0.01).apply("abcd") == expected


def test_options_that_agree_with_the_file_are_not_warned_of(tmp_path, caplog):
    split = IdentitySplit(tmp_path / "kept.csv", test_share=0.2, seed=1)
    split.apply(NAMES)
    split.apply(NAMES)
    assert not caplog.messages


def test_new_people_are_an_error_and_vanished_ones_a_warning(tmp_path, caplog):
    split = IdentitySplit(tmp_path / "kept.csv")
    split.apply("abcdefgh")
    with pytest.raises(ValueError, match=r"kept\.csv does not say .* 2 of .*\(x, y\)\. Add a line"):
        split.apply("abcdefghxy")
    by_side = sorted("abcdefgh", key=read_identity_split(split.file).get)
    assert len(split.apply(by_side[1:])) == 7
    assert f"has 1 identities that are not in the data: {by_side[0]}" in caplog.messages[-1]


@pytest.mark.parametrize(("names", "share"), [("abc", 0.5), (NAMES, 0.1), (NAMES, 0.9)])
def test_two_identities_a_side_are_needed(tmp_path, names, share):
    split = IdentitySplit(tmp_path / "kept.csv", test_share=share)
    with pytest.raises(ValueError, match="at least 2 must be on each side"):
        split.apply(names)
    assert not split.file.exists()


def test_a_file_that_leaves_a_side_too_few_of_those_in_the_data_is_an_error(tmp_path):
    file = write(tmp_path / "kept.csv", "a,train", "b,train", "c,test", "gone,test")
    with pytest.raises(ValueError, match=r"kept\.csv: 2 identities to train and 1 to test on"):
        IdentitySplit(file).apply("abc")


@pytest.mark.parametrize(("share", "side"), [(0, "train"), (1, "test"), (1.0, "test")])
def test_all_or_nobody_tested_on_needs_no_file(tmp_path, share, side):
    split = IdentitySplit(tmp_path / "kept.csv", test_share=share)
    assert split.apply("a") == {"a": side}
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_from_0_to_1(tmp_path, share):
    with pytest.raises(ValueError, match="test_share is from 0 to 1"):
        IdentitySplit(tmp_path / "kept.csv", test_share=share).apply(NAMES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b", r":3 is not IDENTITY,train or IDENTITY,test: \['b'\]"),
        ("b,train,1", ":3 is not IDENTITY"),
        ("b,query", ":3 is not IDENTITY"),
        ("a,test", ":3 has 'a' for the second time"),
    ],
)
def test_a_wrong_line_is_an_error_with_its_place(tmp_path, line, message):
    with pytest.raises(ValueError, match=r"kept\.csv" + message):
        read_identity_split(write(tmp_path / "kept.csv", "a,train", line))


def test_another_file_is_no_split_file(tmp_path):
    file = tmp_path / "kept.csv"
    for text in ("path,identity\n", ""):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"kept\.csv:1 is not the header identity,split"):
            read_identity_split(file)
    with pytest.raises(ValueError, match="cannot read the split file"):
        read_identity_split(tmp_path)


def test_spaces_and_marks_of_spreadsheets_in_the_file_do_no_harm(tmp_path):
    file = tmp_path / "kept.csv"
    file.write_bytes("\ufeffidentity,split\r\na, train\r\n\r\nb,test \r\n".encode())
    assert read_identity_split(file) == {"a": "train", "b": "test"}


def test_where_nothing_can_be_written_another_place_is_asked_for(tmp_path):
    (tmp_path / "file").touch()
    for place in ("file/kept.csv", "nowhere/kept.csv"):
        with pytest.raises(
            ValueError, match=r"kept\.csv \(.*\): choose another place by split_file=PATH"
        ):
            IdentitySplit(tmp_path / place).apply(NAMES)
    split = IdentitySplit(tmp_path / "file" / "kept.csv", split_file=str(tmp_path / "mine.csv"))
    assert split.apply(NAMES) == read_identity_split(tmp_path / "mine.csv")


def _apply(file: Path, seed: int, barrier, results) -> None:
    barrier.wait()
    results.put(IdentitySplit(file, seed=seed).apply(NAMES))


def test_processes_at_the_same_time_agree_on_one_split(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    file = tmp_path / "kept.csv"
    processes = [
        context.Process(target=_apply, args=(file, seed, barrier, results)) for seed in range(4)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [read_identity_split(file)] * 4
    assert os.listdir(tmp_path) == ["kept.csv"]


@pytest.mark.parametrize("has_links", [True, False])
def test_who_comes_second_takes_the_split_of_the_first(tmp_path, monkeypatch, has_links):
    file = tmp_path / "kept.csv"

    def no_links(*paths):
        raise PermissionError("no links here")

    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    first = split_identities(NAMES, 0.5, 1)
    identity_split._write(file, first)
    identity_split._write(file, split_identities(NAMES, 0.5, 2))
    assert read_identity_split(file) == first
    assert os.listdir(tmp_path) == ["kept.csv"]
