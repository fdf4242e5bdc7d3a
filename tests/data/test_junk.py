"""Junk of Market-1501's convention, pid -1, in every layout that can hold it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from rga_timm.data import ReidImage, ReidSplits, create_dataset
from rga_timm.data.datasets.market1501 import FOLDERS
from rga_timm.evaluation import check_testable, evaluate, verify

SPLITS = dict(zip(FOLDERS, ("train", "query", "gallery"), strict=True))


def files(market: Path) -> list[tuple[str, Path]]:
    """The split and the file of each image, also of junk."""
    return [
        (SPLITS[folder], path) for folder in FOLDERS for path in (market / folder).glob("[-0-9]*")
    ]


def by_person(market: Path, folder: Path) -> ReidSplits:
    for split, path in files(market):
        place = folder / split / path.name.split("_")[0]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return create_dataset("folder:camera=name", folder)


def in_a_table(market: Path, folder: Path) -> ReidSplits:
    rows = ["path,identity,camera,split"]
    for split, path in files(market):
        person, camera, *_ = path.name.split("_")
        rows.append(f"{path.relative_to(market)},{int(person)},{camera[1]},{split}")
    (folder / "all.csv").write_text("\n".join(rows))
    return create_dataset("table", folder / "all.csv", images=str(market))


def of_hugging_face(market: Path, folder: Path) -> ReidSplits:
    import datasets

    columns = {"image": [], "label": [], "camera": [], "split": []}
    for split, path in files(market):
        person, camera, *_ = path.name.split("_")
        row = str(path), int(person), int(camera[1]), split
        for column, cell in zip(columns.values(), row, strict=True):
            column.append(cell)
    datasets.Dataset.from_dict(columns).save_to_disk(str(folder / "all"))
    return create_dataset("hf:split_column=split", folder / "all")


def scores(splits: ReidSplits) -> tuple[float, ...]:
    """Of features by person and camera, as good as random."""

    def features(reader) -> np.ndarray:
        seeds = zip(reader.pids.tolist(), reader.camids.tolist(), strict=True)
        return np.stack(
            [np.random.default_rng([pid + 1, cam]).normal(size=4) for pid, cam in seeds]
        )

    query, gallery = splits.query, splits.gallery
    result = evaluate(
        *(features(query), query.pids, query.camids),
        *(features(gallery), gallery.pids, gallery.camids),
    )
    return result.mAP, result.mAP_trapezoid, result.mINP, *result.cmc


@pytest.mark.faults
@pytest.mark.parametrize("layout", [by_person, in_a_table, of_hugging_face])
def test_junk_is_left_out_of_every_layout(market_root, tmp_path, layout):
    expected = create_dataset("market1501", market_root)
    (tmp_path / "other").mkdir()
    splits = layout(market_root, tmp_path / "other")
    for name, reader in expected.readers.items():
        found = splits.readers[name]
        ids = (
            sorted(zip(r.pids.tolist(), r.camids.tolist(), strict=True)) for r in (found, reader)
        )
        assert next(ids) == next(ids)
    assert 0 in splits.gallery.pids  # the distractor stays
    assert scores(splits) == pytest.approx(scores(expected), rel=1e-12)


@pytest.mark.faults
def test_junk_is_told_also_where_other_people_have_names(tmp_path, caplog):
    for place in ("anna/1", "anna/2", "ben/1", "-1/1", "-1/2"):
        (tmp_path / "test" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / f"{place}.jpg").touch()
    caplog.set_level("INFO")
    splits = create_dataset("folder", tmp_path)
    assert splits.gallery.pids.tolist() == splits.query.pids.tolist() == [1, 1, 2]
    assert "2 images of the identity -1 are junk" in caplog.text


@pytest.mark.faults
def test_a_list_without_identities_is_read_to_distil_from(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jpg").touch()
    (tmp_path / "all.csv").write_text("path,identity,split\na.jpg,-1,train\nb.jpg,-1,train\n")
    assert create_dataset("table", tmp_path).train.pids.tolist() == [-1, -1]


@pytest.mark.faults
def test_junk_in_the_gallery_is_no_match():
    image = ReidImage("a.jpg", -1, 1)
    for gallery in ([image._replace(camid=2)], [image._replace(camid=2), image._replace(pid=5)]):
        splits = ReidSplits.from_images("x", Path(), query=[image], gallery=gallery)
        with pytest.raises(ValueError, match="no query has a match: the person of 1 is not in the"):
            check_testable([splits])


@pytest.mark.faults
@pytest.mark.parametrize("options", [{}, {"rerank": {"k1": 6, "k2": 2}}, {"expand": {"k": 2}}])
def test_arrays_with_junk_are_scored_as_without_it(options):
    rng = np.random.default_rng(0)
    query = rng.normal(size=(9, 5)), rng.integers(-1, 4, 9), rng.integers(1, 3, 9)
    gallery = rng.normal(size=(60, 5)), rng.integers(-1, 4, 60), rng.integers(1, 3, 60)
    kept = gallery[1] != -1
    assert 0 < kept.sum() < 60
    assert -1 in query[1]
    without = [part[kept] for part in gallery]
    found, expected = evaluate(*query, *gallery, **options), evaluate(*query, *without, **options)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
    assert (found.first_match_rank[query[1] == -1] == -1).all()
    assert verify(*query, *gallery, fprs=[0.1]) == verify(*query, *without, fprs=[0.1])


@pytest.mark.faults
def test_a_gallery_of_junk_alone_is_refused():
    with pytest.raises(ValueError, match="all 3 gallery images are of pid -1, which is junk"):
        evaluate(np.ones((1, 2)), [1], [1], np.ones((3, 2)), [-1] * 3, [2] * 3)
