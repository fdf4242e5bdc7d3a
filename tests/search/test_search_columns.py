from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rga_timm.search import where_clause
from rga_timm.search.columns import Columns, parse_time

NOON = datetime(2024, 5, 1, 12)


def write(tmp_path: Path, text: str, name: str = "table.csv") -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def cells(columns: Columns, *paths: str) -> dict[str, list]:
    taken = columns.take(paths)
    return {f.name: c.to_pylist() for f, c in zip(columns.fields, taken, strict=True)}


def test_cells_of_csv_have_types_and_follow_the_paths(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "floor,path,time,place,score,note\n"
        "1,a.jpg,2024-05-01T12:00:00,gate,0.5,\n"
        "2,sub/b.jpg,2024-05-01,,1.5,\n",
    )
    columns = Columns(file)
    assert cells(columns, "sub/b.jpg", "unknown.jpg", "a.jpg") == {
        "floor": [2, None, 1],
        "time": [datetime(2024, 5, 1), None, NOON],
        "place": [None, None, "gate"],
        "score": [1.5, None, 0.5],
        "note": [None, None, None],
    }
    assert [field.type for field in columns.fields] == [
        pa.int64(), pa.timestamp("us"), pa.string(), pa.float64(), pa.string(),
    ]  # fmt: skip


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_found(tmp_path: Path, delimiter: str) -> None:
    file = write(tmp_path, f"path{delimiter}place\na.jpg{delimiter}gate, left\n")
    assert cells(Columns(file), "a.jpg") == {"place": ["gate, left"]}


def test_times_with_an_offset_are_utc(tmp_path: Path) -> None:
    file = write(tmp_path, "path,time\na,2024-05-01T14:00+02:00\nb,2024-05-01T12:00:00Z\nc,\n")
    noon = NOON.replace(tzinfo=timezone.utc)
    assert cells(Columns(file), "a", "b", "c") == {"time": [noon, noon, None]}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.timestamp("ns"), NOON),
        (pa.timestamp("s"), NOON),
        (pa.string(), "2024-05-01 12:00"),
        (pa.large_string(), "2024-05-01 12:00"),
    ],
)
def test_times_of_parquet_are_one_type(tmp_path: Path, kind: pa.DataType, value: object) -> None:
    file = tmp_path / "table.parquet"
    place = pa.array(["gate"]).dictionary_encode()
    pq.write_table(pa.table({"path": ["a"], "time": pa.array([value], kind), "p": place}), file)
    columns = Columns(file)
    assert [field.type for field in columns.fields] == [pa.timestamp("us"), pa.string()]
    assert cells(columns, "a") == {"time": [NOON], "p": ["gate"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,place\na,b\n", "has no column 'path', only file, place"),
        ("path\na\n", "has no column beside 'path'"),
        ("path,place\na,1\nb,2\na,3\n", "has several rows for a"),
        ("path,camid\na,1\n", "cannot be called 'camid' here"),
        ("path,_distance\na,1\n", "cannot be called '_distance' here"),
        ("path,a.b\na,1\n", "cannot be called 'a.b' here"),
        ("path,time\na,2024-05-01\nb,yesterday\n", "row 2: 'yesterday' is no time"),
        ("path,time\na,1714564800\n", "row 1: '1714564800' is no time"),
        ("path,time\na,2024-05-01\nb,2024-05-01T00:00Z\n", "some times say their offset"),
        ("path,place\na,1,2\n", "table.csv"),
        ("", "is empty"),
    ],
)
def test_bad_tables_are_refused_by_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"table\.csv") as error:
        Columns(write(tmp_path, text), reserved=("camid", "embedding"))
    assert message in str(error.value)


def test_numbers_are_no_times_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a"], "time": [1714564800]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="'time' is int64; it must be a timestamp"):
        Columns(tmp_path / "t.parquet")


def test_a_table_about_other_images_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = Columns(write(tmp_path, "path,place\nphotos/a.jpg,gate\n"))
    columns.take(["a.jpg"])
    with pytest.raises(ValueError, match=r"about other images.*'photos/a\.jpg'"):
        columns.check_found()
    assert not caplog.text
    columns.take(["photos/a.jpg", "photos/b.jpg"])
    columns.check_found()
    assert "table.csv has no row for 2 of the images" in caplog.text


def test_times_are_iso_8601() -> None:
    assert parse_time(" 2024-05-01T12:00 ") == NOON
    assert parse_time("2024-05-01T12:00Z") == NOON.replace(tzinfo=timezone.utc)
    with pytest.raises(ValueError, match="'noon' is no time"):
        parse_time("noon")


def schema(**fields: pa.DataType) -> pa.Schema:
    return pa.schema([("camid", pa.int64()), *fields.items()])


def test_conditions_are_joined_and_text_is_quoted() -> None:
    text = schema(camera=pa.string(), time=pa.timestamp("us"))
    assert where_clause(text) is None
    assert where_clause(text, cameras=["o'hare", 3]) == "camera IN ('o''hare', '3')"
    assert where_clause(
        text, not_cameras=["a"], after="2024-05-01", before="2024-05-02", where="x = 1 OR y = 2"
    ) == (
        "(x = 1 OR y = 2) AND (camera NOT IN ('a') OR camera IS NULL)"
        " AND time >= timestamp '2024-05-01T00:00:00' AND time < timestamp '2024-05-02T00:00:00'"
    )
    assert where_clause(schema(), cameras=["3", 5]) == "camid IN (3, 5)"


def test_offsets_from_utc_have_to_fit() -> None:
    zoned = schema(time=pa.timestamp("us", "UTC"))
    expected = "time >= timestamp '2024-05-01T10:00:00Z'"
    assert where_clause(zoned, after="2024-05-01T12:00+02:00") == expected
    with pytest.raises(ValueError, match="say their offset from UTC, other than '2024-05-01'"):
        where_clause(zoned, after="2024-05-01")
    with pytest.raises(ValueError, match="have no offset from UTC"):
        where_clause(schema(time=pa.timestamp("us")), before="2024-05-01T00:00Z")
    with pytest.raises(ValueError, match="the index has no times"):
        where_clause(schema(), before="2024-05-01")
    with pytest.raises(ValueError, match="cameras are whole numbers in this index"):
        where_clause(schema(), cameras=["gate"])
