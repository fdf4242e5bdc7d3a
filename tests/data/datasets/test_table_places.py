"""Tables as people and their programs write them: boxes, backslashes, other encodings."""

from pathlib import Path

import pytest
from noise_image import write_noise

from rga_timm.data import ReidDataset, create_dataset


def boxes_of(folder: Path, *boxes: str) -> list:
    """The images of the boxes of one picture of 16 by 32 pixels."""
    write_noise(folder / "a.png")
    rows = [f"a.png,7,test,{box}" for box in boxes]
    (folder / "people.csv").write_text(
        "\n".join(["path,identity,split,left,top,right,bottom", *rows])
    )
    reader = create_dataset("table", folder / "people.csv").query
    return [(reader.images[i].box, ReidDataset(reader)[i][0].size) for i in range(len(boxes))]


@pytest.mark.faults
def test_fractions_of_pixels_are_taken_in_whole(tmp_path):
    assert boxes_of(tmp_path, "1.0,2.00,9.,20.0", "1.7,3.2,8.1,19.9", "3.2,3.2,3.4,3.4") == [
        ((1, 2, 9, 20), (8, 18)),
        ((1, 3, 9, 20), (8, 17)),
        ((3, 3, 4, 4), (1, 1)),
    ]


@pytest.mark.faults
def test_what_is_beyond_the_edge_is_left_out(tmp_path):
    found = boxes_of(tmp_path, "-3,-0.5,8,40", "10,0,999,32")
    assert [size for _, size in found] == [(8, 32), (6, 32)]


@pytest.mark.faults
def test_backslashes_are_read_as_slashes_where_there_is_such_a_file(tmp_path):
    write_noise(tmp_path / "a" / "1.png")
    write_noise(tmp_path / "a" / "2.png", seed=1)
    write_noise(tmp_path / "b\\3.png", seed=2)
    lines = ["path,identity,split", "a\\1.png,x,test", "a/2.png,x,test", "b\\3.png,x,test"]
    (tmp_path / "people.csv").write_text("\n".join(lines))
    splits = create_dataset("table", tmp_path)
    assert [image.path for image in splits.query.images] == ["a/1.png", "a/2.png", "b\\3.png"]
    lines.append("a/1.png,x,test")
    (tmp_path / "people.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"people\.csv:5: 'a/1\.png' is listed twice"):
        create_dataset("table", tmp_path)
    lines[-1] = "a\\9.png,x,test"
    (tmp_path / "people.csv").write_text("\n".join(lines))
    with pytest.raises(FileNotFoundError, match=r"there is no file .*a\\9\.png; 1 of 4"):
        create_dataset("table", tmp_path)


@pytest.mark.faults
def test_a_table_in_another_encoding_is_named_as_the_cause(tmp_path):
    write_noise(tmp_path / "Zoé.png")
    (tmp_path / "people.csv").write_bytes("path,identity\nZoé.png,x".encode("latin-1"))
    with pytest.raises(FileNotFoundError, match=r"people\.csv:2: .*Is the table UTF-8 text\?"):
        create_dataset("table", tmp_path)
