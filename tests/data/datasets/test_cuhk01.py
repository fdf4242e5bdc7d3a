from pathlib import Path

import pytest

from rga_timm.data import Counts, create_dataset, partition_specs


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """All names of CUHK01. The files are empty: a reader does not open them."""
    root = tmp_path_factory.mktemp("data") / "CUHK01"
    (root / "campus").mkdir(parents=True)
    for pid in range(1, 972):
        for number in range(1, 5):
            (root / "campus" / f"{pid:04d}{number:03d}.png").touch()
    (root / "campus" / "Thumbs.db").touch()
    return root


def pids(reader) -> set[int]:
    return set(reader.pids.tolist())


@pytest.mark.parametrize(("test_ids", "train_ids"), [(486, 485), (100, 871)])
def test_people_are_trained_on_or_tested_on_and_camera_a_asks_for_camera_b(
    root, caplog, test_ids, train_ids
):
    splits = create_dataset("cuhk01", root.parent, test_ids=test_ids)
    assert splits.root == root
    assert splits.counts == {
        "train": Counts(4 * train_ids, train_ids, 2),
        "query": Counts(2 * test_ids, test_ids, 1),
        "gallery": Counts(2 * test_ids, test_ids, 1),
    }
    assert not caplog.messages  # they are the published ones, and nobody is in both
    assert pids(splits.query) == pids(splits.gallery)
    assert pids(splits.train) | pids(splits.query) == set(range(1, 972))
    assert set(splits.query.camids.tolist()) == {1}
    assert set(splits.gallery.camids.tolist()) == {2}
    assert not splits.single_gallery_shot
    for reader in splits.readers.values():
        for image in reader.images:
            folder, name = image.path.split("/")
            assert folder == "campus"
            assert int(name[:4]) == image.pid
            assert {"001": 1, "002": 1, "003": 2, "004": 2}[name[4:7]] == image.camid


def test_the_partitions_are_ten_different_ones_and_the_same_everywhere(root):
    specs = partition_specs("cuhk01:split=all")
    tested = [frozenset(pids(create_dataset(spec, root).query)) for spec in specs]
    assert len(set(tested)) == 10
    # Pinned: another version of numpy must not change who is tested on.
    first = [[2, 3, 4, 12], [3, 5, 6, 8], [1, 2, 4, 7]]
    sums = [241304, 233891, 235940, 239782, 240363, 233036, 242416, 244655, 232503, 238829]
    assert [sorted(people)[:4] for people in tested[:3]] == first
    assert [sum(people) for people in tested] == sums


def test_half_of_the_people_is_the_default(root):
    assert create_dataset("cuhk01:test_ids=486,split=0", root).name == "cuhk01"
    assert create_dataset("cuhk01:test_ids=100", root).name == "cuhk01:test_ids=100"
    assert len(pids(create_dataset("cuhk01", root).query)) == 486


def test_the_same_people_are_tested_on_where_others_are_missing(root, tmp_path, caplog):
    whole = create_dataset("cuhk01", root)
    (tmp_path / "campus").mkdir()
    for path in sorted((root / "campus").glob("*.png"))[1000:]:
        (tmp_path / "campus" / path.name).touch()
    part = create_dataset("cuhk01", tmp_path)
    assert pids(part.query) == {pid for pid in pids(whole.query) if pid > 250}
    assert len(caplog.messages) == 3  # counts that are not the published ones


@pytest.mark.parametrize(
    "name", ["0001005.png", "0001000.png", "1001.png", "0001_c1_1.png", "a.md"]
)
def test_a_name_of_another_data_set_is_an_error(tmp_path, name):
    (tmp_path / "campus").mkdir()
    (tmp_path / "campus" / name).touch()
    with pytest.raises(ValueError, match=rf"{name} is not named as in CUHK01.*0001003\.png"):
        create_dataset("cuhk01", tmp_path)


@pytest.mark.parametrize("pid", [0, 972])
def test_a_person_who_is_not_in_it_is_an_error(tmp_path, pid):
    (tmp_path / "campus").mkdir()
    (tmp_path / "campus" / f"{pid:04d}001.png").touch()
    with pytest.raises(ValueError, match=f"people are 1 to 971, not {pid}"):
        create_dataset("cuhk01", tmp_path)


def test_no_or_too_few_images_are_an_error(tmp_path):
    (tmp_path / "campus").mkdir()
    with pytest.raises(FileNotFoundError, match="campus holds no images"):
        create_dataset("cuhk01", tmp_path)
    (tmp_path / "campus" / "0001001.png").touch()
    with pytest.raises(FileNotFoundError, match="holds 1 images, too few for partition 0"):
        create_dataset("cuhk01", tmp_path)


def test_wrong_options_are_an_error(root):
    with pytest.raises(ValueError, match="test_ids is one of 486, 100, not '200'"):
        create_dataset("cuhk01:test_ids=200", root)
    with pytest.raises(ValueError, match="split 10 is not one of the 10 partitions"):
        create_dataset("cuhk01:split=10", root)
