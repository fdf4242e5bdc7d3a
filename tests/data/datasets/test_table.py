import csv
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_image import write_noise

from rga_timm.data import ReidDataset, ReidImage, ReidSplits, create_dataset, write_table

HEADER = "path,identity,camera,split"
ROWS = ["a/1.jpg,anna,hall,train", "a/2.jpg,ben,door,test", "b/1.jpg,ben,hall,test"]


def make(folder: Path, *lines: str, name: str = "people.csv", encoding: str = "utf-8") -> Path:
    """A table of images that are there. They are not opened by the reader: empty files will do."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes("\n".join(lines).encode(encoding))
    for path in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    return folder / name


def parquet(folder: Path, **columns: list) -> Path:
    path = make(folder, name="people.parquet")
    pq.write_table(pa.table(columns), path)
    return path


def test_people_cameras_and_splits_are_read(tmp_path):
    file = make(tmp_path, HEADER, *ROWS)
    for root in (file, tmp_path, str(tmp_path)):
        splits = create_dataset("table", root)
        assert splits.train.images == [ReidImage("a/1.jpg", 1, 2)]
        assert splits.query.images == splits.gallery.images
        assert splits.query.images == [ReidImage("a/2.jpg", 2, 1), ReidImage("b/1.jpg", 2, 2)]
        assert splits.has_cameras
        assert (splits.root, splits.name) == (tmp_path, "table")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_marks_empty_lines_and_spaces_do_no_harm(tmp_path, delimiter):
    expected = create_dataset("table", make(tmp_path / "plain", HEADER, *ROWS)).fingerprint
    lines = [line.replace(",", delimiter) for line in (HEADER, *ROWS)]
    spaced = [lines[0].replace(delimiter, f" {delimiter} ") + "\r", lines[1] + " \r", "\r"]
    spaced += [*lines[2:], delimiter * 3, ""]
    file = make(tmp_path, *spaced, encoding="utf-8-sig")
    assert create_dataset("table", file).fingerprint == expected


def test_a_delimiter_may_be_in_a_quoted_cell(tmp_path):
    file = make(tmp_path, "path;identity", 'a/1.jpg;"a;b"', "a/2.jpg;a,b,c", "b/1.jpg;a,b,c")
    splits = create_dataset("table:test_share=1", file)
    assert splits.query.pids.tolist() == [2, 1, 1]


def test_columns_may_be_called_otherwise(tmp_path):
    file = make(tmp_path, "file,who,split,cam,set,seq,x0,y0,x1,y1", "a/1.jpg,x,9,4,train,s,0,1,2,3")
    splits = create_dataset(
        "table:path=file,identity=who,camera=cam,split_column=set,tracklet=seq,box=x0 y0 x1 y1",
        file,
    )
    assert splits.train.images == [ReidImage("a/1.jpg", 1, 4, 1, (0, 1, 2, 3))]


def test_columns_that_are_there_can_be_left_out(tmp_path):
    file = make(tmp_path, f"{HEADER},tracklet,left,top", *(f"{row},,," for row in ROWS))
    with pytest.raises(ValueError, match="has left, top of the box's columns"):
        create_dataset("table", file)
    spec = "table:camera=none,split_column=none,tracklet=none,box=none,test_share=1"
    splits = create_dataset(spec, file)
    assert not splits.has_cameras
    assert len(splits.query) == 3
    assert {image[3:] for image in splits.query.images} == {(-1, None)}


def test_boxes_are_cut_out_where_there_are_some(tmp_path):
    file = make(
        tmp_path,
        "path,identity,split,left,top,right,bottom",
        "b/1.png,7,test,0,0,5,20",
        "b/1.png,7,test,5,0,16,32",
        "b/1.png,7,test,,,,",
    )
    write_noise(tmp_path / "b/1.png")
    splits = create_dataset("table", file)
    assert [image.size for image, _ in ReidDataset(splits.query)] == [(5, 20), (11, 32), (16, 32)]
    assert len(set(splits.query.camids)) == 3


def test_images_may_lie_elsewhere(tmp_path):
    make(tmp_path / "images", HEADER)
    file = make(tmp_path / "lists", HEADER, *ROWS)
    (tmp_path / "lists/a/1.jpg").unlink()
    splits = create_dataset(f"table:images={tmp_path / 'images'}", file)
    assert splits.root == tmp_path / "images"
    assert len(splits.train) == 1


def test_without_a_split_people_are_dealt_and_the_deal_is_kept_beside_the_table(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.jpg").touch()
    file = make(tmp_path, "path,identity", *(f"{i}.jpg,{i % 4}" for i in range(8)))
    splits = create_dataset("table:seed=3", file)
    kept = tmp_path / "people.split.csv"
    assert kept.read_text().count(",test") == 2
    assert len(splits.train) == len(splits.query) == 4
    kept.write_text("identity,split\n0,test\n1,test\n2,train\n3,train\n")
    splits = create_dataset("table", tmp_path)  # which holds one table: this is none
    assert splits.query.pids.tolist() == [0, 1, 0, 1]
    assert splits.train.pids.tolist() == [2, 3, 2, 3]


def test_parquet_is_read_as_csv_is(tmp_path):
    columns = list(zip(*(row.split(",") for row in ROWS), strict=True))
    file = parquet(tmp_path / "p", **dict(zip(HEADER.split(","), columns, strict=True)))
    expected = create_dataset("table", make(tmp_path / "c", HEADER, *ROWS))
    assert create_dataset("table", file).fingerprint == expected.fingerprint
    assert create_dataset("table", file.parent).train.images == expected.train.images


def test_numbers_categories_and_gaps_of_parquet_are_read(tmp_path):
    file = parquet(
        tmp_path,
        path=pa.array(["a/1.jpg", "a/2.jpg", "b/1.jpg"]).dictionary_encode(),
        identity=[30, 4, 4],
        camera=[1.0, 2.0, 3.0],
        split=["train", "test", "test"],
        tracklet=pa.array([float("nan"), 5.0, 6.0]),
        left=[None, 0.0, 1.0],
        top=[None, 0, 1],
        right=[None, 8, 9],
        bottom=[None, 8, 9],
        pixels=[b"", b"", b""],
    )
    splits = create_dataset("table", file)
    assert splits.train.images == [ReidImage("a/1.jpg", 30, 1)]
    assert splits.gallery.images == [
        ReidImage("a/2.jpg", 4, 2, 5, (0, 0, 8, 8)),
        ReidImage("b/1.jpg", 4, 3, 6, (1, 1, 9, 9)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",ben,door,test", "has no path"),
        ("b/2.jpg, ,door,test", r"has no identity \(column 'identity'\)"),
        ("b/2.jpg,ben,,test", "has no camera, as 1 of 4 images, and .*people.csv:2 has one"),
        ("b/2.jpg,ben,door,dev", "has the split 'dev' .* none of train, query, gallery, test"),
        ("b/2.jpg,ben,door,", "has the split ''"),
        ("b/2.jpg,ben,door", "has 3 cells, but the header has 4"),
        ("b/2.jpg,ben,door,test,", "has 5 cells, but the header has 4"),
        ("./a/2.jpg,ben,attic,query", r"'./a/2.jpg' is listed .*people.csv:3, in query"),
        ("a/1.jpg,ben,door,test", r"'a/1.jpg' is 'ben', but 'anna' at .*people.csv:2"),
    ],
)
def test_a_wrong_row_is_an_error_with_its_place(tmp_path, line, message):
    file = make(tmp_path, HEADER, *ROWS, line)
    with pytest.raises(ValueError, match=rf"people\.csv:5:? {message}"):
        create_dataset("table", file)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("x,0,4,4", r"the box 'x', '0', '4', '4', which should be four numbers"),
        ("0,0,nan,4", "the box '0', '0', 'nan', '4'"),
        ("0,0,4,", "the box '0', '0', '4', ''"),
        ("4,0,4,4", "a box with nothing in it: left 4, top 0, right 4, bottom 4"),
        ("0,5,4,4", "a box with nothing in it"),
        ("-9,-9,0,4", "a box with nothing in it"),
    ],
)
def test_a_wrong_box_is_an_error_with_its_place(tmp_path, box, message):
    header = "path,identity,left,top,right,bottom"
    file = make(tmp_path, header, "a/1.jpg,1,,,,", f"a/2.jpg,1,{box}")
    with pytest.raises(ValueError, match=rf"people\.csv:3 has {message}"):
        create_dataset("table", file)


def test_an_image_in_query_and_gallery_is_not_there_twice(tmp_path):
    rows = [ROWS[1].replace("test", "query"), ROWS[1].replace("test", "gallery"), ROWS[2]]
    splits = create_dataset("table", make(tmp_path, HEADER, *rows))
    assert len(splits.query) == len(splits.gallery) == 2


def test_a_wrong_row_of_parquet_is_an_error_with_its_number(tmp_path):
    file = parquet(tmp_path, path=["a/1.jpg", "a/2.jpg"], identity=["anna", None])
    with pytest.raises(ValueError, match=r"people\.parquet: row 2 has no identity"):
        create_dataset("table", file)


@pytest.mark.parametrize(
    ("spec", "column", "option"),
    [
        ("table:path=file", "file", "path"),
        ("table:identity=who", "who", "identity"),
        ("table:camera=cam", "cam", "camera"),
        ("table:split_column=set", "set", "split_column"),
        ("table:tracklet=t", "t", "tracklet"),
        ("table:box=x0 top right bottom", "x0", "box"),
        ("table:camera=left", "left", "camera"),
    ],
)
def test_a_column_that_is_not_there_is_an_error_that_says_which_are(tmp_path, spec, column, option):
    files = [make(tmp_path, HEADER, *ROWS)]
    files.append(parquet(tmp_path, path=["a"], identity=["b"], camera=["c"], split=["train"]))
    for file in files:
        with pytest.raises(
            ValueError,
            match=rf"has no column '{column}'. It has path, identity, camera, split: the option "
            rf"{option} says",
        ):
            create_dataset(spec, file)


def test_a_table_without_the_columns_is_an_error(tmp_path):
    file = make(tmp_path, "a/1.jpg;anna;hall;train")
    with pytest.raises(ValueError, match=r"no column 'path'. It has a/1.jpg, anna, hall, train:"):
        create_dataset("table", file)
    with pytest.raises(ValueError, match="box names four columns, such as 'left top right bottom'"):
        create_dataset("table:box=left top", file)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty, or its first line is"),
        ([HEADER], "has a header but no rows"),
        (["path,identity,path", "a,b,c"], "has two columns 'path'"),
    ],
)
def test_a_table_without_content_is_an_error(tmp_path, lines, message):
    with pytest.raises(ValueError, match=rf"people\.csv {message}"):
        create_dataset("table", make(tmp_path, *lines))


def test_what_is_no_table_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"people\.xlsx does not end in one of"):
        create_dataset("table", make(tmp_path, HEADER, name="people.xlsx"))
    with pytest.raises(ValueError, match=r"people\.parquet is not a Parquet file"):
        create_dataset("table", make(tmp_path, HEADER, name="people.parquet"))


def test_missing_images_are_counted_and_the_first_is_named(tmp_path):
    file = make(tmp_path, HEADER, *ROWS, "c/9.jpg,ben,hall,test")
    (tmp_path / "a/2.jpg").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"people\.csv:3: there is no file .*a/2\.jpg; 2 of 4 images are missing",
    ):
        create_dataset("table", file)


def test_files_are_not_asked_for_one_by_one(tmp_path, monkeypatch):
    lines = [f"a/{i}.jpg,{i % 9},{i % 2},test" for i in range(1000)]
    file = make(tmp_path, HEADER, *lines)
    for i in range(1000):
        (tmp_path / f"a/{i}.jpg").touch()
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(os.path, "isfile", None)
    assert len(create_dataset("table", file).query) == 1000
    assert listed == [tmp_path / "a"]


def test_the_table_has_to_be_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="table needs the file"):
        create_dataset("table")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        create_dataset("table", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds nothing: it is empty\. Expected a CSV"):
        create_dataset("table", tmp_path)
    make(tmp_path, HEADER, *ROWS)
    make(tmp_path, HEADER, *ROWS, name="b.parquet")
    with pytest.raises(FileNotFoundError, match=r"holds b\.parquet, people\.csv\. Expected"):
        create_dataset("table", tmp_path)


def test_without_pyarrow_parquet_is_an_error_that_says_how_to_get_it(tmp_path, monkeypatch):
    file = parquet(tmp_path, path=["a/1.jpg"], identity=["anna"])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"needs pyarrow: pip install 'rga-timm\[data\]'"):
        create_dataset("table", file)
    assert create_dataset("table", make(tmp_path, HEADER, *ROWS)).has_cameras


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=6)
PATHS = NAMES.map(lambda name: f"x{name}y.jpg")  # "." and ".." are no names of files
PIDS = st.integers(0, 10**17)  # -1 is junk, which no reader gives


@st.composite
def reid_splits(draw, root: Path) -> ReidSplits:
    """Any that `ReidSplits` can hold, if its test splits can be tested on."""
    paths = draw(st.lists(PATHS, min_size=3, max_size=10, unique=True))
    has_cameras, has_tracklets, has_boxes = draw(st.tuples(*[st.booleans()] * 3))
    images = [
        ReidImage(
            path=path,
            pid=draw(PIDS),
            camid=draw(st.integers(0, 30)) if has_cameras else rank,
            tracklet=rank * 7 if has_tracklets else -1,
            box=draw(st.sampled_from([(0, 0, 1, 9), (5, 6, 7, 8), None])) if has_boxes else None,
        )
        for rank, path in enumerate(sorted(paths), 1)
    ]
    # A query with a match; the others as they come.
    first, second, *others = draw(st.permutations(images))
    second = second._replace(pid=first.pid, camid=first.camid + 1 if has_cameras else second.camid)
    images = [first, second, *others]
    where = [{"query"}, {"gallery"}] + [
        draw(st.sampled_from([{"train"}, {"query"}, {"gallery"}, {"query", "gallery"}]))
        for _ in others
    ]
    splits = {
        split: [image for image, of in zip(images, where, strict=True) if split in of]
        for split in ("train", "query", "gallery")
    }
    return ReidSplits.from_images("any", root, **splits, has_cameras=has_cameras)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_written_is_read_back(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("any")
    splits = data.draw(reid_splits(root))
    for reader in splits.readers.values():
        for image in reader.images:
            (root / image.path).touch()
    assert write_table(splits, root / "any.csv") == {}
    again = create_dataset("table", root)
    assert again.train.images == splits.train.images
    assert again.query.images == splits.query.images
    assert sorted(again.gallery.images) == sorted(splits.gallery.images)
    assert again.fingerprint == splits.fingerprint
    assert again.describe() | {"name": ""} == splits.describe() | {"name": ""}
    assert (again.root, again.has_cameras) == (root, splits.has_cameras)


def test_market1501_goes_through_a_table(market_root, tmp_path):
    splits = create_dataset("market1501", market_root)
    options = write_table(splits, tmp_path / "market.csv")
    assert options == {"images": str(market_root)}
    again = create_dataset("table", tmp_path / "market.csv", **options)
    assert again.fingerprint == splits.fingerprint
    rows = list(csv.DictReader((tmp_path / "market.csv").open()))
    assert rows[0] == {
        "path": "bounding_box_train/0007_c1s1_000451_03.jpg",
        "identity": "7",
        "camera": "1",
        "split": "train",
    }


def test_the_protocol_comes_with_the_options(tmp_path):
    make(tmp_path)
    files = [ReidImage(p, 1, i) for i, p in enumerate(["a/1.jpg", "a/2.jpg", "b/1.jpg"])]
    splits = ReidSplits.from_images(
        "mine",
        tmp_path,
        train=[files[0]],
        query=[files[1]],
        gallery=[files[2], files[0]._replace(pid=9)],
        same_numbering=False,
        single_gallery_shot=True,
    )
    options = write_table(splits, tmp_path / "mine.csv")
    again = create_dataset("table", tmp_path / "mine.csv", **options)
    assert again.fingerprint == splits.fingerprint
    assert not again.same_numbering
    assert again.single_gallery_shot
    with pytest.raises(ValueError, match=r"mine\.csv:5: 'a/1.jpg' is '9', but '1' at"):
        create_dataset("table", tmp_path / "mine.csv")


def test_what_no_table_can_say_is_not_written(tmp_path):
    image = ReidImage("a/1.jpg", 1, 1)
    file = tmp_path / "x.csv"
    for splits, message in (
        ({"train": [image], "opener": open}, "the images of x are not files that a table could"),
        ({"train": [image, image]}, "x, train: 'a/1.jpg' is listed twice, after x, train"),
        ({"train": [image], "query": [image._replace(pid=2)]}, "is '2', but '1' at x, train"),
    ):
        with pytest.raises(ValueError, match=message):
            write_table(ReidSplits.from_images("x", tmp_path, **splits), file)
    assert not file.exists()
    with pytest.raises(ValueError, match=r"ends in \.csv, not to .*x\.parquet"):
        write_table(ReidSplits.from_images("x", tmp_path), tmp_path / "x.parquet")
    file.touch()
    with pytest.raises(FileExistsError):
        write_table(ReidSplits.from_images("x", tmp_path), file)
