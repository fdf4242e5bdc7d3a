from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rga_timm.data import ReidImage, ReidReader
from rga_timm.data.checks import contact_sheet, stack_sheets

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def paint(root: Path, name: str, colour: tuple[int, int, int], size=(32, 64)) -> None:
    Image.new("RGB", size, colour).save(root / name)


def columns_of(sheet: Image.Image, colour: tuple[int, int, int]) -> list[int]:
    """The first and the last column of pixels in which a colour is."""
    columns = np.flatnonzero((np.asarray(sheet) == colour).all(-1).any(0))
    return [int(columns[0]), int(columns[-1])] if len(columns) else []


@pytest.fixture
def reader(tmp_path: Path) -> ReidReader:
    """Person 1 is red and green, under two cameras; person 2 is blue under the second."""
    paint(tmp_path, "red.png", RED)
    paint(tmp_path, "green.png", GREEN)
    paint(tmp_path, "blue.png", BLUE)
    images = [ReidImage("red.png", 1, 3), ReidImage("green.png", 1, 8), ReidImage("blue.png", 2, 8)]
    return ReidReader(tmp_path, images)


def test_rows_are_people_and_columns_are_cameras(reader: ReidReader) -> None:
    sheet = contact_sheet(reader, "x, train")
    pixels = np.asarray(sheet)
    red, green, blue = (np.argwhere((pixels == c).all(-1)) for c in (RED, GREEN, BLUE))
    assert len(red) == len(green) == len(blue) == 64 * 128  # twice as large as the files
    assert red[:, 0].tolist() == green[:, 0].tolist()
    assert green[:, 1].tolist() == blue[:, 1].tolist()
    assert red[:, 1].max() < green[:, 1].min()
    assert green[:, 0].max() < blue[:, 0].min()


def test_labels_are_written(reader: ReidReader) -> None:
    pixels = np.asarray(contact_sheet(reader, "x, train").convert("L"))
    left, top = pixels[:, :60], pixels[:32]
    assert (left[36:164] < 100).sum() > 10  # id 1
    assert (left[168:296] < 100).sum() > 10  # id 2
    assert (top[18:, 64:130] < 100).sum() > 10  # camera 3
    other = np.asarray(contact_sheet(reader, "y, query").convert("L"))
    assert (other[:18] != pixels[:18]).any()
    assert (other[18:] == pixels[18:]).all()


def test_a_few_people_are_drawn_by_the_seed_and_the_distractor_is_none(tmp_path: Path) -> None:
    paint(tmp_path, "red.png", RED)
    for pid in range(20):
        paint(tmp_path, f"{pid}.png", (pid, 0, 255))
    images = [ReidImage("red.png", 0, 1), *(ReidImage(f"{p}.png", p, 1) for p in range(1, 20))]
    reader = ReidReader(tmp_path, images)

    def shown(seed: int) -> set[int]:
        pixels = np.asarray(contact_sheet(reader, "x", ids=4, seed=seed)).reshape(-1, 3)
        return set(pixels[(pixels[:, 1] == 0) & (pixels[:, 2] == 255), 0].tolist())

    assert len(shown(0)) == 4
    assert shown(0) == shown(0)
    assert shown(0) != shown(1)
    assert not columns_of(contact_sheet(reader, "x", ids=20), RED)
    only = ReidReader(tmp_path, images[:1])
    assert columns_of(contact_sheet(only, "x"), RED)


def test_without_cameras_the_images_of_a_person_stand_side_by_side(reader: ReidReader) -> None:
    sheet = contact_sheet(reader, "x", has_cameras=False)
    assert columns_of(sheet, RED) == columns_of(sheet, BLUE)
    assert columns_of(sheet, RED) < columns_of(sheet, GREEN)


def test_an_unreadable_image_does_not_end_it(reader: ReidReader) -> None:
    (reader.root / "green.png").write_bytes(b"")
    sheet = contact_sheet(reader, "x")
    assert columns_of(sheet, RED)
    assert not columns_of(sheet, GREEN)


def test_wide_images_boxes_and_many_cameras_fit(tmp_path: Path) -> None:
    paint(tmp_path, "red.png", RED, (600, 100))
    images = [ReidImage("red.png", 1, camid, box=(0, 0, 599, 3)) for camid in range(40)]
    sheet = contact_sheet(ReidReader(tmp_path, images), "x")
    assert sheet.width < 24 * 201 + 65
    assert (np.asarray(sheet) == RED).all(-1).sum() == 24 * 192


def test_an_empty_split_has_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x, query has no images"):
        contact_sheet(ReidReader(tmp_path, []), "x, query")


def test_sheets_are_stacked() -> None:
    stacked = stack_sheets([Image.new("RGB", (4, 2), RED), Image.new("RGB", (2, 3), BLUE)])
    assert stacked.size == (4, 5)
    assert stacked.getpixel((3, 1)) == RED
    assert stacked.getpixel((1, 2)) == BLUE
    assert stacked.getpixel((3, 3)) == (255, 255, 255)
