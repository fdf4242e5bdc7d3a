import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rga_timm.data import ReidReader, create_dataset
from rga_timm.data.datasets import pedestrians
from rga_timm.data.datasets.market1501 import read_market1501

SMALL = {
    "train_ids": 6,
    "train_images": 5,
    "test_ids": 20,
    "distractors": 9,
    "junk": 3,
    "progress": False,
}


TINY = {**SMALL, "train_ids": 1, "train_images": 2, "test_ids": 1}


def contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*.jpg")
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return pedestrians.draw(tmp_path_factory.mktemp("drawn") / "set", **SMALL)


def test_the_same_seed_draws_the_same_files_and_another_seed_others(root, tmp_path):
    assert contents(pedestrians.draw(tmp_path / "again", **SMALL)) == contents(root)
    one, other = (
        set(contents(pedestrians.draw(tmp_path / str(seed), seed=seed, **TINY)).values())
        for seed in (1, 2)
    )
    assert not one & other


def test_the_files_are_a_data_set_in_markets_layout(root, caplog):
    splits = read_market1501(root, "pedestrians")
    assert not caplog.messages  # nobody is in train and test
    assert splits.describe()["train"] == {"images": 30, "ids": 6, "cameras": 6}
    assert len(splits.classes) == 6
    tested = set(splits.query.pids.tolist())
    assert len(tested) == 20
    assert not tested & set(splits.classes)
    assert set(splits.gallery.pids.tolist()) == tested | {0}
    assert (splits.gallery.pids == 0).sum() == 9
    junk = list((root / "bounding_box_test").glob("-1_*"))
    assert len(junk) == 3


def test_every_query_has_right_answers_from_other_cameras(root):
    splits = read_market1501(root, "pedestrians")
    seen = list(zip(splits.query.pids.tolist(), splits.query.camids.tolist(), strict=True))
    assert len(set(seen)) == len(seen)  # one query a person and camera
    for pid, camid in seen:
        mine = splits.gallery.pids == pid
        assert 4 <= len(set(splits.gallery.camids[mine].tolist())) <= 6
        assert (mine & (splits.gallery.camids != camid)).sum() >= 2 * 3


def test_images_are_64_by_128_jpegs(root):
    for path in root.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))


def histograms(reader: ReidReader) -> np.ndarray:
    """(n, 6 · 512): an 8×8×8 RGB histogram of each of six stripes, L2-normalised."""
    rows = []
    for i in range(len(reader)):
        pixels = np.asarray(Image.open(reader.filename(i, absolute=True))) // 32
        stripes = np.array_split(pixels.astype(int) @ [64, 8, 1], 6)
        rows.append(np.concatenate([np.bincount(s.ravel(), minlength=512) for s in stripes]))
    features = np.array(rows, dtype=float)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def mean_average_precision(features_of, splits) -> float:
    """A few lines that know nothing of the package's own evaluation."""
    similarity = features_of(splits.query) @ features_of(splits.gallery).T
    precisions = []
    for row, pid, camid in zip(similarity, splits.query.pids, splits.query.camids, strict=True):
        same_person = splits.gallery.pids == pid
        allowed = ~(same_person & (splits.gallery.camids == camid))
        right = same_person[allowed][np.argsort(-row[allowed])]
        ranks = np.flatnonzero(right) + 1
        precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return float(np.mean(precisions))


def test_colour_histograms_do_not_find_people(root):
    splits = read_market1501(root, "pedestrians")
    assert mean_average_precision(histograms, splits) < 0.25
    # The same yardstick gives 1 to somebody who knows the answer.
    knows = lambda reader: (reader.pids[:, None] == np.arange(1, 27)).astype(float)  # noqa: E731
    assert mean_average_precision(knows, splits) == 1.0


@pytest.fixture
def tiny_sets(monkeypatch):
    """create_dataset draws tiny sets; the list is of the roots that were drawn."""
    drawn = []

    def draw(root: Path) -> None:
        original(root, **TINY)
        drawn.append(root)

    original = pedestrians.draw
    monkeypatch.setattr(pedestrians, "draw", draw)
    return drawn


def test_create_dataset_draws_once_into_the_cache_and_then_reads(tiny_sets, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = create_dataset("pedestrians"), create_dataset("pedestrians")
    folder = tmp_path / "rga_timm" / f"pedestrians-{pedestrians.VERSION}"
    assert tiny_sets == [folder]
    assert first.root == folder
    assert first.fingerprint == second.fingerprint
    assert first.name == "pedestrians"


def test_the_cache_is_in_the_home_directory_by_default(tiny_sets, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert create_dataset("pedestrians").root.parent == tmp_path / ".cache" / "rga_timm"


def test_a_root_of_ones_own_may_hold_other_things(tiny_sets, root, tmp_path):
    # Not mistaken for the data set itself, which is in Market-1501's layout too.
    market = tmp_path / "Market-1501-v15.09.15"
    root.rename(market)
    try:
        found = create_dataset("pedestrians", tmp_path)
    finally:
        market.rename(root)
    assert found.root == tmp_path / f"pedestrians-{pedestrians.VERSION}"
    assert create_dataset("pedestrians", found.root).root == found.root
    assert len(tiny_sets) == 1


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pedestrians, "_draw_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pedestrians.draw(tmp_path / "set", **SMALL)
    assert not list(tmp_path.iterdir())


def test_the_slower_of_two_processes_uses_what_the_faster_one_drew(tmp_path, monkeypatch, caplog):
    target = tmp_path / "set"
    drawn = []
    original = pedestrians._draw_one

    def overtaken(*args):
        if not drawn:  # while the first image is drawn, another process finishes
            drawn.append(True)
            pedestrians.draw(target, seed=7, **TINY)
        original(*args)

    monkeypatch.setattr(pedestrians, "_draw_one", overtaken)
    with caplog.at_level(logging.INFO):
        assert pedestrians.draw(target, **TINY) == target
    assert "by another process" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    monkeypatch.undo()
    assert contents(target) == contents(pedestrians.draw(tmp_path / "winner", seed=7, **TINY))


def test_something_else_in_the_place_of_the_data_set_is_an_error(tmp_path):
    target = tmp_path / "set"
    target.mkdir()
    (target / "precious.txt").touch()
    with pytest.raises(FileExistsError, match="exists already"):
        pedestrians.draw(target, **TINY)
    assert [path.name for path in target.iterdir()] == ["precious.txt"]


def test_a_place_taken_by_something_else_meanwhile_is_an_error(tmp_path, monkeypatch):
    target = tmp_path / "set"

    def taken(*_):
        target.mkdir(exist_ok=True)
        (target / "precious.txt").touch()

    monkeypatch.setattr(pedestrians, "_draw_one", taken)
    with pytest.raises(OSError, match="set"):
        pedestrians.draw(target, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_is_in_the_place_already_is_read_and_not_drawn_over(tiny_sets, tmp_path):
    folder = tmp_path / f"pedestrians-{pedestrians.VERSION}"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="nothing: it is empty"):
        create_dataset("pedestrians", tmp_path)
    assert not tiny_sets
