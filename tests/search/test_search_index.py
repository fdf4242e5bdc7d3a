import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from stored_folder import clustered, write_folder

from rga_timm.evaluation import iter_embeddings
from rga_timm.search import SearchIndex
from rga_timm.search import rows as rows_module


def nearest(
    queries: np.ndarray, features: np.ndarray, k: int, keep: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and cosine similarities of the k most similar ones, by brute force."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, features)]
    similarities = unit[0] @ unit[1].T
    if keep is not None:
        similarities[:, ~keep] = -np.inf
    order = np.argsort(-similarities, axis=1)[:, :k]
    return order, np.take_along_axis(similarities, order, axis=1)


def paths_of(found: list[list[dict]]) -> list[list[str]]:
    return [[row["path"] for row in rows] for rows in found]


def assert_found(found: list[list[dict]], order: np.ndarray, similarities: np.ndarray) -> None:
    expected = [[f"images/{row:05d}.jpg" for row in rows] for rows in order]
    assert paths_of(found) == expected
    ranks = [[row["rank"] for row in rows] for rows in found]
    assert ranks == [list(range(1, order.shape[1] + 1))] * len(order)
    got = np.array([[row["similarity"] for row in rows] for rows in found])
    np.testing.assert_allclose(got, similarities, atol=1e-5)


def test_the_exact_search_is_brute_force(
    index: SearchIndex, people: tuple[np.ndarray, np.ndarray], queries: np.ndarray
) -> None:
    assert_found(index.query(queries, 7), *nearest(queries, people[0], 7))


def test_results_carry_all_columns_but_the_embedding(
    index: SearchIndex, people: tuple[np.ndarray, np.ndarray], folder: Path
) -> None:
    ((row,),) = index.query(people[0][7:8], 1)
    assert row == {
        "rank": 1,
        "similarity": pytest.approx(1),
        "root": str(folder.parent),
        "path": "images/00007.jpg",
        "split": "gallery",
        "pid": 2,
        "camid": 2,
        "tracklet": -1,
        "time": datetime(2024, 5, 1, 12, 7),
        "place": "gate",
    }


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize(
    ("where", "keeps"),
    [
        ("camid = 3", lambda i: i % 5 == 3),
        ("time >= timestamp '2024-05-01T14:00:00'", lambda i: i >= 120),
        (
            "(place = 'gate' OR pid = 1) AND camid = 1",
            lambda i: ((i % 3 > 0) | (i < 5)) & (i % 5 == 1),
        ),
        ("path LIKE '%00.jpg' AND split = 'gallery'", lambda i: i % 100 == 0),
    ],
)
def test_filters_hold_before_the_search(
    index: SearchIndex,
    people: tuple[np.ndarray, np.ndarray],
    queries: np.ndarray,
    where: str,
    keeps: Callable[[np.ndarray], np.ndarray],
    approximate: bool,
) -> None:
    if approximate:  # all partitions looked into, all candidates compared: exact again
        index.create_index("ivf_rq", num_partitions=8)
    keep = keeps(np.arange(300))
    found = index.query(queries, 3, where=where, nprobes=8, refine_factor=100)
    assert_found(found, *nearest(queries, people[0], 3, keep))


def test_images_that_are_there_already_are_kept_or_replaced(
    tmp_path: Path, folder: Path, people: tuple[np.ndarray, np.ndarray]
) -> None:
    index = SearchIndex.build(tmp_path / "db", folder)
    index.create_index("ivf_rq", num_partitions=4)
    features, _ = clustered(5, 2, seed=3)
    paths = [f"images/{i:05d}.jpg" for i in range(5)] + [f"new/{i}.jpg" for i in range(5)]
    again = write_folder(tmp_path / "again", features, paths=paths)
    assert index.append(again) == 5
    assert index.query(people[0][:1], 1)[0][0]["similarity"] > 0.999  # the old one stays
    assert index.append(again, replace=True) == 0
    assert len(index) == 305
    assert [rows[0] for rows in paths_of(index.query(features, 1))] == paths
    assert index.query(people[0][:1], 1)[0][0]["similarity"] < 0.999  # the old one is gone


def test_the_same_name_in_another_split_or_folder_is_another_image(
    tmp_path: Path, folder: Path, people: tuple[np.ndarray, np.ndarray]
) -> None:
    index = SearchIndex.build(tmp_path / "db", folder)
    queries = write_folder(tmp_path / "queries", people[0], splits=["query"] * 300)
    elsewhere = write_folder(tmp_path / "x" / "elsewhere", people[0])
    assert index.append(queries) == 300
    assert index.append(elsewhere) == 300
    found = index.query(people[0][:1], 3)[0]
    assert {(row["root"], row["split"]) for row in found} == {
        (str(tmp_path), "gallery"),
        (str(tmp_path), "query"),
        (str(tmp_path / "x"), "gallery"),
    }


def test_replacing_by_two_of_the_same_name_is_refused(tmp_path: Path, index: SearchIndex) -> None:
    twice = write_folder(
        tmp_path / "twice", np.ones((2, 16), np.float32), paths=["images/00001.jpg"] * 2
    )
    with pytest.raises(ValueError, match=r"path = \"images/00001.jpg\""):
        index.append(twice, replace=True)
    assert index.append(twice) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"model": "resnet50", "weights_sha256": "1"},
            "model: 'test_rga_resnet' in the index, 'resnet50' in these",
        ),
        ({"weights_sha256": "1"}, "weights_sha256: '0' in the index, '1' in these"),
        ({"img_size": [128, 64]}, "img_size: [64, 32] in the index, [128, 64] in these"),
        ({"interpolation": "bicubic"}, "interpolation: 'bilinear' in the index"),
        ({"feature": "pooled"}, "feature: 'embedding' in the index, 'pooled'"),
        ({"flip": True}, "flip: False in the index, True"),
        ({"scales": [1.0, 1.5]}, "scales: "),
    ],
)
def test_embeddings_made_otherwise_are_refused(
    tmp_path: Path, index: SearchIndex, changed: dict, message: str
) -> None:
    features = np.ones((2, 16), np.float32)
    other = write_folder(tmp_path / "other", features, paths=["a", "b"], **changed)
    with pytest.raises(ValueError, match="cannot be compared") as error:
        index.append(other)
    assert message in str(error.value)
    assert len(index) == 300


def test_the_same_weights_from_elsewhere_are_the_same_model(
    tmp_path: Path, folder: Path, people: tuple[np.ndarray, np.ndarray]
) -> None:
    index = SearchIndex.build(tmp_path / "db", folder)
    moved = {"model": "local-dir:moved", "checkpoint": None, "amp_dtype": "float16"}
    other = write_folder(tmp_path / "x" / "other", people[0], **moved)
    assert index.append(other) == 300


def test_embeddings_of_another_width_are_refused(tmp_path: Path, index: SearchIndex) -> None:
    other = write_folder(tmp_path / "other", np.ones((2, 8), np.float32))
    with pytest.raises(ValueError, match="width: 16 in the index, 8 in these"):
        index.append(other)
    with pytest.raises(ValueError, match=r"features must be \(n, 16\)"):
        index.query(np.ones((2, 8)), 1)


def test_columns_that_the_index_lacks_are_refused_and_missing_ones_are_empty(
    tmp_path: Path, index: SearchIndex, folder: Path
) -> None:
    new = write_folder(tmp_path / "new", np.ones((1, 16), np.float32), paths=["a"])
    (tmp_path / "more.csv").write_text("path,time,floor\na,2024-05-01T10:00,3\n")
    with pytest.raises(ValueError, match="floor"):
        index.append(new, columns=tmp_path / "more.csv")
    (tmp_path / "zone.csv").write_text("path,time\na,2024-05-01T10:00Z\n")
    with pytest.raises(ValueError, match=r"zone\.csv.*expected no zone offset"):
        index.append(new, columns=tmp_path / "zone.csv")
    assert index.append(new) == 1
    (row,) = index.query(np.ones((1, 16)), 1)[0]
    assert (row["path"], row["time"], row["place"]) == ("a", None, None)


def test_columns_that_look_otherwise_in_another_table_fit(
    tmp_path: Path, folder: Path, people: tuple[np.ndarray, np.ndarray]
) -> None:
    def table(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    first = table(
        "first.csv", "path,time,place,score\nimages/00000.jpg,2024-05-01T10:00Z,gate,0.5\n"
    )
    index = SearchIndex.build(tmp_path / "db", folder, columns=first)
    new = write_folder(tmp_path / "x" / "new", people[0][:2])
    empty = table("empty.csv", "score,place,time,path\n3,7,,images/00001.jpg\n")
    index.append(new, columns=empty)
    (row,) = index.query(people[0][1:2], 1, where="place = '7'")[0]
    assert (row["score"], row["time"], row["path"]) == (3.0, None, "images/00001.jpg")
    other = write_folder(tmp_path / "y" / "other", people[0][:1])
    wrong = table("wrong.csv", "path,time,place,score\nimages/00000.jpg,,gate,high\n")
    with pytest.raises(ValueError, match=r"wrong\.csv.*high"):
        index.append(other, columns=wrong)


def test_only_the_splits_asked_for_are_taken(tmp_path: Path) -> None:
    features, _ = clustered(10, 2)
    splits = ["query", "gallery"] * 10
    folder = write_folder(tmp_path / "embeddings", features, splits=splits, shard_size=7)
    index = SearchIndex.build(tmp_path / "db", folder, splits=["gallery"])
    found = index.query(features[:1], 20)[0]
    assert {row["path"] for row in found} == {f"images/{i:05d}.jpg" for i in range(1, 20, 2)}
    with pytest.raises(ValueError, match="holds no embeddings of the splits train"):
        SearchIndex.build(tmp_path / "db2", folder, splits=["train"])
    with pytest.raises(ValueError, match="there is no index"):
        SearchIndex(tmp_path / "db2")


def test_an_index_is_overwritten_only_if_asked_for(
    tmp_path: Path, index: SearchIndex, folder: Path
) -> None:
    features, _ = clustered(2, 2, seed=9)
    other = write_folder(tmp_path / "other", features, feature="pooled")
    with pytest.raises(ValueError, match="already: append, or overwrite it"):
        SearchIndex.build(tmp_path / "db", other)
    assert len(SearchIndex(tmp_path / "db")) == 300
    new = SearchIndex.build(tmp_path / "db", other, overwrite=True)
    assert len(new) == 4
    assert new.metadata["feature"] == "pooled"
    assert "time" not in new.info()["columns"]


def test_a_table_of_something_else_is_left_alone(tmp_path: Path, folder: Path) -> None:
    lancedb.connect(tmp_path / "db").create_table("embeddings", data=pa.table({"x": [1]}))
    for make in (
        lambda: SearchIndex(tmp_path / "db"),
        lambda: SearchIndex.build(tmp_path / "db", folder, overwrite=True),
    ):
        with pytest.raises(ValueError, match="is not an index of embeddings"):
            make()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_or_append_changes_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def broken(folder: Path):
        shards = rows_module_iter(folder)
        yield next(shards)
        yield next(shards)
        raise error("stop")

    rows_module_iter = rows_module.iter_embeddings
    monkeypatch.setattr(rows_module, "iter_embeddings", broken)
    with pytest.raises(error, match="stop"):
        SearchIndex.build(tmp_path / "db", folder)
    with pytest.raises(ValueError, match="there is no index"):
        SearchIndex(tmp_path / "db")

    monkeypatch.undo()
    index = SearchIndex.build(tmp_path / "db", folder)
    assert len(index) == 300
    other = write_folder(tmp_path / "x" / "other", clustered(60, 5, seed=1)[0])
    monkeypatch.setattr(rows_module, "iter_embeddings", broken)
    for work in (
        lambda: index.append(other),
        lambda: index.append(other, replace=True),
        lambda: SearchIndex.build(tmp_path / "db", other, overwrite=True),
    ):
        with pytest.raises(error, match="stop"):
            work()
        assert len(SearchIndex(tmp_path / "db")) == 300
    monkeypatch.undo()
    assert SearchIndex(tmp_path / "db").append(other) == 300


def test_ctrl_c_ends_a_build_without_an_index(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path):
        for number, shard in enumerate(iter_embeddings(folder)):
            yield shard
            if number == 1:  # LanceDB's thread is here, the main thread waits for it
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.3)

    monkeypatch.setattr(rows_module, "iter_embeddings", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SearchIndex.build(tmp_path / "db", folder)
    time.sleep(1)  # in which the thread would commit
    with pytest.raises(ValueError, match="there is no index"):
        SearchIndex(tmp_path / "db")
    monkeypatch.undo()
    assert len(SearchIndex.build(tmp_path / "db", folder)) == 300


def test_a_zero_feature_is_found_by_no_query_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    features, _ = clustered(3, 2)
    features[4] = 0
    index = SearchIndex.build(tmp_path / "db", write_folder(tmp_path / "zero", features))
    assert "1 of the embeddings are zero: similar to nothing" in caplog.text
    assert len(index) == 6
    found = {row["path"] for row in index.query(features[:1], 6)[0]}
    assert found == {f"images/{i:05d}.jpg" for i in (0, 1, 2, 3, 5)}


def test_queries_without_direction_are_refused(tmp_path: Path) -> None:
    index_folder = write_folder(tmp_path / "ok", clustered(3, 2)[0])
    index = SearchIndex.build(tmp_path / "db", index_folder)
    for value in (0, np.inf, np.nan):
        with pytest.raises(ValueError, match="query 1 is zero or not finite"):
            index.query(np.stack([np.ones(16), np.full(16, value)]))


def test_bad_numbers_are_named(index: SearchIndex, queries: np.ndarray, tmp_path: Path) -> None:
    for name in ("k", "nprobes", "refine_factor"):
        with pytest.raises(ValueError, match="must be at least 1"):
            index.query(queries, **{name: 0})
    with pytest.raises(ValueError, match="kind must be one of exact, ivf_rq"):
        index.create_index("hnsw")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="300 images are too few"):
        index.create_index(num_partitions=301)
    with pytest.raises(ValueError, match="nonsense"):
        index.query(queries, where="nonsense = 3")
    few = write_folder(tmp_path / "few", clustered(10, 2)[0])
    with pytest.raises(ValueError, match="20 images are too few"):
        SearchIndex.build(tmp_path / "few-db", few).create_index()


@pytest.mark.parametrize("missing", ["lancedb", "pyarrow"])
def test_without_lancedb_the_error_says_what_to_install(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for make in (
        lambda: SearchIndex(tmp_path / "db"),
        lambda: SearchIndex.build(tmp_path / "db", folder),
    ):
        with pytest.raises(ImportError, match=r"pip install 'rga-timm\[search\]'"):
            make()


@pytest.mark.parametrize("name", ["misspelt", "deep/misspelt"])
def test_an_index_that_is_not_there_is_not_begun(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"there is no index in .*misspelt"):
        SearchIndex(tmp_path / name)
    assert not [*tmp_path.iterdir()]
