import json

import numpy as np
import pytest

from rga_timm.data.partition import (
    Partition,
    choose_partition,
    random_partition,
    read_partition_file,
)

NAMES = {f"{pid:03d}_{angle}.bmp": pid for pid in range(6) for angle in (0, 90)}


def write(path, entries):
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.parametrize(
    ("pids", "size", "split", "chosen"),
    [
        # Golden values: a change of these changes what every reported mean over splits is about.
        (range(10), 5, 0, {1, 2, 3, 6, 8}),
        (range(10), 5, 1, {2, 4, 5, 7, 9}),
        (range(10), 5, 9, {1, 2, 4, 8, 9}),
        ([7, 20, 3, 500, 41, 8], 2, 0, {8, 20}),
    ],
)
def test_the_random_partitions_never_change(pids, size, split, chosen):
    assert random_partition(pids, size, split) == chosen


def test_the_random_partitions_of_the_sizes_in_use_never_change():
    sums = {
        people: [sum(random_partition(range(people), size, split)) for split in (0, 1, 9)]
        for people, size in ((632, 316), (450, 225), (200, 100), (971, 485))
    }
    assert sums == {
        632: [101104, 100099, 103224],
        450: [50474, 52144, 53248],
        200: [9844, 10426, 10624],
        971: [239924, 233061, 237471],
    }


def test_the_choice_is_that_of_the_smallest_draws_of_a_pcg64():
    draws = dict(enumerate(np.random.PCG64(3).random_raw(50).tolist()))
    assert random_partition(range(50), 20, 3) == set(sorted(draws, key=draws.__getitem__)[:20])


def test_order_and_repetition_of_the_people_do_not_matter():
    expected = random_partition(range(100), 40, 2)
    assert random_partition([*reversed(range(100)), 5, 5], 40, 2) == expected


def test_ten_splits_are_ten_partitions_which_give_each_person_about_the_same_chance():
    chosen = [random_partition(range(1000), 500, split) for split in range(10)]
    assert len({frozenset(people) for people in chosen}) == 10
    assert all(len(people) == 500 for people in chosen)
    often = np.bincount([pid for people in chosen for pid in people], minlength=1000)
    assert abs(often.std() - np.sqrt(10 / 4)) < 0.15  # binomial


@pytest.mark.parametrize("size", [0, 4, 5, -1])
def test_nobody_left_on_one_side_is_an_error(size):
    with pytest.raises(ValueError, match=f"{size} of 4 people"):
        random_partition(range(4), size, 0)


def test_a_negative_split_is_an_error():
    with pytest.raises(ValueError, match="no split -1"):
        random_partition(range(4), 2, -1)


def test_a_file_of_pids_is_read(tmp_path):
    path = write(
        tmp_path / "mine.json",
        [{"train": [0, 1, 2], "test": [3, 4, 5]}, {"train": [5], "test": [0]}],
    )
    assert read_partition_file(path, NAMES) == [
        Partition(frozenset({0, 1, 2}), frozenset({3, 4, 5})),
        Partition(frozenset({5}), frozenset({0})),
    ]


def torchreid_entry(train, test, query_angle, gallery_angle):
    """As torchreid writes it: labels count from 0 in both halves, paths are of its machine."""

    def items(pids, angle, camera):
        return [
            [f"/home/me/reid-data/viper/VIPeR/cam_a/{pid:03d}_{angle}.bmp", label, camera]
            for label, pid in enumerate(pids)
        ]

    return {
        "train": items(train, 0, 0) + items(train, 90, 1),
        "query": items(test, query_angle, 0),
        "gallery": items(test, gallery_angle, 1),
        "num_train_pids": len(train),
        "num_query_pids": len(test),
        "num_gallery_pids": len(test),
    }


def test_a_file_of_torchreid_is_read_and_its_two_directions_are_one_partition(tmp_path):
    halves = [([4, 0, 2], [5, 1, 3]), ([1, 2, 3], [0, 5, 4])]
    entries = [
        torchreid_entry(train, test, *angles)
        for train, test in halves
        for angles in ((0, 90), (90, 0))
    ]
    assert read_partition_file(write(tmp_path / "splits.json", entries), NAMES) == [
        Partition(frozenset({0, 2, 4}), frozenset({1, 3, 5})),
        Partition(frozenset({1, 2, 3}), frozenset({0, 4, 5})),
    ]


def test_paths_of_windows_and_bare_names_are_read(tmp_path):
    entry = {
        "train": [r"D:\data\VIPeR\cam_a\000_0.bmp", "001_90.bmp"],
        "test": ["cam_b/002_90.bmp"],
    }
    assert read_partition_file(write(tmp_path / "mine.json", [entry]), NAMES) == [
        Partition(frozenset({0, 1}), frozenset({2}))
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"train": [0, 1], "test": [1, 2]}, r"both trains and tests on 1 people, such as 1"),
        ({"train": [0], "test": [1], "gallery": [0]}, r"both trains and tests on 1 people"),
        ({"train": [0, 77, 78], "test": [1]}, r", train names 2 that are not there.* as 77"),
        (
            {"train": [0], "query": ["a/900_0.bmp"], "gallery": [1]},
            r", query names 1 that are not there.* as a/900_0\.bmp",
        ),
        ({"train": [], "test": [1]}, "has nobody to train on"),
        ({"train": [1], "test": []}, "has nobody to test on"),
        ({"train": [1], "gallery": [2]}, 'is not an object with "train" and "test"'),
        ({"trainval": [1], "query": [2], "gallery": [2]}, 'is not an object with "train"'),
        ([[1], [2]], 'is not an object with "train"'),
        ({"train": {"0": 1}, "test": [2]}, ", train is not a list"),
        ({"train": [1.5], "test": [2]}, r"1\.5 is neither a person's number nor an image's path"),
        ({"train": [True], "test": [2]}, r"True is neither"),
        ({"train": [[1, 0, 0]], "test": [2]}, r"\[1, 0, 0\] is neither"),
        ({"train": [[]], "test": [2]}, r"\[\] is neither"),
    ],
)
def test_a_partition_that_does_not_fit_is_told_with_file_and_number(tmp_path, entry, message):
    path = write(tmp_path / "mine.json", [{"train": [0], "test": [1]}, entry])
    with pytest.raises(ValueError, match=rf"mine\.json, partition 1.*{message}"):
        read_partition_file(path, NAMES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: 0 1 2", "mine.json is not a JSON file"),
        (b"\xff\xfe\x00", "mine.json is not a JSON file"),
        (b'{"train": [0], "test": [1]}', "mine.json is not a list of partitions"),
    ],
)
def test_a_file_of_another_form_is_an_error(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_partition_file(path, NAMES)


def test_a_partition_is_random_unless_a_file_is_named(tmp_path):
    write(tmp_path / "splits.json", [{"train": [0], "test": [1]}])  # as torchreid leaves it there
    train = random_partition(range(6), 3, 4)
    assert choose_partition(tmp_path, NAMES, size=3, split=4) == Partition(
        frozenset(train), frozenset(range(6)) - train
    )


def ten_partitions():
    return [{"train": [n % 6], "test": [(n + 1) % 6]} for n in range(10)]


@pytest.mark.parametrize("where", ["beside the images", "in the folder above"])
def test_a_relative_path_starts_at_the_data_set_or_above_it(tmp_path, monkeypatch, where):
    root = tmp_path / "viper" / "VIPeR"
    root.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere / "splits.json", ten_partitions()[::-1])
    monkeypatch.chdir(elsewhere)
    write((root if where == "beside the images" else root.parent) / "splits.json", ten_partitions())
    chosen = choose_partition(root, NAMES, size=3, split=2, file="splits.json")
    assert chosen == Partition(frozenset({2}), frozenset({3}))


def test_the_working_directory_is_looked_in_last(tmp_path, monkeypatch):
    root = tmp_path / "viper" / "VIPeR"
    root.mkdir(parents=True)
    write(tmp_path / "mine.json", ten_partitions())
    monkeypatch.chdir(tmp_path)
    chosen = choose_partition(root, NAMES, size=3, split=9, file="mine.json")
    assert chosen == Partition(frozenset({3}), frozenset({4}))


def test_a_partition_file_that_is_not_there_is_told_with_where_it_was_looked_for(tmp_path):
    root = tmp_path / "VIPeR"
    with pytest.raises(FileNotFoundError, match=r"no partition file .*VIPeR/mine\.json or .*json"):
        choose_partition(root, NAMES, size=3, split=0, file="mine.json")


def test_other_than_ten_partitions_are_an_error(tmp_path):
    write(tmp_path / "mine.json", ten_partitions()[:7])
    with pytest.raises(ValueError, match=r"mine\.json holds 7 partitions.*mean over 10"):
        choose_partition(tmp_path, NAMES, size=3, split=0, file="mine.json")


def test_a_split_that_a_file_does_not_hold_is_an_error(tmp_path):
    write(tmp_path / "mine.json", ten_partitions())
    with pytest.raises(ValueError, match=r"partitions 0 to 9, not 10"):
        choose_partition(tmp_path, NAMES, size=3, split=10, file="mine.json")
