from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored_folder import write_folder

from rga_timm.search import SearchIndex

NOON = datetime(2024, 5, 1, 12)


def build(tmp_path: Path, text: str, paths: tuple[str, ...] = ("a", "b", "c")) -> SearchIndex:
    folder = tmp_path / "embeddings"
    write_folder(folder, np.ones((len(paths), 8), np.float32), paths=paths)
    file = tmp_path / "table.csv"
    if text:
        file.write_text(text)
    return SearchIndex.build(tmp_path / "db", folder, columns=file)


def cells(index: SearchIndex) -> dict[str, list]:
    names = index.table.schema.names
    return {name: index.table.to_arrow()[name].to_pylist() for name in names[6:-1]}


def test_cells_of_csv_have_types_and_follow_the_paths(tmp_path: Path) -> None:
    index = build(
        tmp_path,
        "floor,path,time,place,score,note\n"
        "1,a.jpg,2024-05-01T12:00:00,gate,0.5,\n"
        "2,sub/b.jpg,2024-05-01,,1.5,\n",
        ("sub/b.jpg", "unknown.jpg", "a.jpg"),
    )
    assert cells(index) == {
        "floor": [2, None, 1],
        "time": [datetime(2024, 5, 1), None, NOON],
        "place": [None, None, "gate"],
        "score": [1.5, None, 0.5],
        "note": [None, None, None],
    }
    kinds = [index.table.schema.field(name).type for name in ("floor", "place", "score", "note")]
    assert kinds == [pa.int64(), pa.string(), pa.float64(), pa.string()]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_found(tmp_path: Path, delimiter: str) -> None:
    index = build(tmp_path, f"path{delimiter}place\na{delimiter}gate, left\n")
    assert cells(index) == {"place": ["gate, left", None, None]}


def test_times_with_an_offset_are_utc(tmp_path: Path) -> None:
    index = build(tmp_path, "path,time\na,2024-05-01T14:00+02:00\nb,2024-05-01T12:00:00Z\nc,\n")
    noon = NOON.replace(tzinfo=timezone.utc)
    assert cells(index) == {"time": [noon, noon, None]}
    found = index.query(np.ones((1, 8)), where="time < timestamp '2024-05-01T14:30:00+02:00'")[0]
    assert {row["path"] for row in found} == {"a", "b"}


@pytest.mark.parametrize("kind", ["ns", "us", "s"])
def test_timestamps_of_parquet_are_kept(tmp_path: Path, kind: str) -> None:
    table = pa.table({"path": ["b"], "time": pa.array([NOON], pa.timestamp(kind)), "p": ["gate"]})
    pq.write_table(table, tmp_path / "table.parquet")
    folder = write_folder(tmp_path / "e", np.ones((2, 8), np.float32), paths=["a", "b"])
    index = SearchIndex.build(tmp_path / "db", folder, columns=tmp_path / "table.parquet")
    assert cells(index) == {"time": [None, NOON], "p": [None, "gate"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,place\na,b\n", "must have the column 'path' and others, not ['file', 'place']"),
        ("path\na\n", "must have the column 'path' and others"),
        ("path,place\na,1\nb,2\na,3\n", "has several rows for a"),
        ("path,camid\na,1\n", "cannot be called 'camid' here"),
        ("path,_distance\na,1\n", "cannot be called '_distance' here"),
        ("path,a.b\na,1\n", "cannot be called 'a.b' here"),
        ("path,time\na,2024-05-01\nb,yesterday\n", "'time' must hold timestamps"),
        ("path,time\na,1714564800\n", "'time' must hold timestamps"),
        ("path,time\na,2024-05-01\nb,2024-05-01T00:00Z\n", "all of them with an offset"),
        ("path,place\na,1,2\n", "Expected 2 columns, got 3"),
        ("path,place\nx/a,gate\n", "is about other images"),
        ("\n", "is empty"),
        ("", "table.csv"),
    ],
)
def test_bad_tables_are_refused_by_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=r"table\.csv") as error:
        build(tmp_path, text)
    assert message in str(error.value)
    with pytest.raises(ValueError, match="there is no index"):
        SearchIndex(tmp_path / "db")


def test_images_that_the_table_lacks_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, "path,place\nb,gate\n")
    assert "table.csv has no row for 2 of the images" in caplog.text
