import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rga_timm.search import format_results, result_sheet, save_results

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def paint(file: Path, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (32, 64), colour).save(file)
    return file


def row(rank: int, path: str, **changed: Any) -> dict[str, Any]:
    similarity = 1 - rank / 8
    about = {"root": "", "path": path, "split": "", "pid": -1, "camid": 3, "tracklet": -1}
    return {"rank": rank, "similarity": similarity, **about, **changed}


def test_the_table_shows_what_is_known() -> None:
    time = datetime(2024, 5, 1, 12)
    found = [[row(1, "a.jpg", pid=7, time=time), row(2, "long/b.jpg", camid=-1, time=None)], []]
    assert format_results(["q.jpg", "r.jpg"], found) == "\n".join(
        [
            "q.jpg",
            "  rank  similarity  camera  pid                 time  path",
            "     1       0.875       3    7  2024-05-01T12:00:00  a.jpg",
            "     2       0.750                                    long/b.jpg",
            "",
            "r.jpg",
            "  nothing fulfils the conditions",
        ]
    )
    assert "pid" not in format_results(["q"], [[row(1, "a")]])
    assert "gate" in format_results(["q"], [[row(1, "a", camera="gate")]])


def test_json_holds_everything(tmp_path: Path) -> None:
    found = [[row(1, "a.jpg", time=datetime(2024, 5, 1, 12))]]
    save_results(tmp_path / "found.json", ["q.jpg"], found, {"search": {"k": 1}})
    assert json.loads((tmp_path / "found.json").read_text()) == {
        "search": {"k": 1},
        "queries": [
            {"query": "q.jpg", "results": [{**found[0][0], "time": "2024-05-01T12:00:00"}]}
        ],
    }


def boxes(sheet: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Left upper corners of the images of a colour, line by line."""
    is_colour = (np.asarray(sheet) == colour).all(-1)
    corner = is_colour.copy()
    corner[1:] &= ~is_colour[:-1]
    corner[:, 1:] &= ~is_colour[:, :-1]
    return [(int(x), int(y)) for y, x in np.argwhere(corner)]


def test_the_sheet_shows_the_query_and_then_the_results(tmp_path: Path) -> None:
    query = paint(tmp_path / "query.png", BLUE)
    paint(tmp_path / "red.png", RED)
    paint(tmp_path / "green.png", GREEN)
    rows = [row(1, "red.png"), row(2, "green.png"), row(3, "red.png")]
    sheet = result_sheet([query, query], [rows, rows[:1]], root=tmp_path)
    step, line = 114, 128 + 3 * 14 + 8
    assert sheet.size == (4 + 4 * step, 2 * (4 + line))
    pixels = np.asarray(sheet)
    assert (pixels[20:100, 10:60] == BLUE).all()  # within its frame
    second = 4 + line
    assert boxes(sheet, RED) == [(4 + step, 4), (4 + 3 * step, 4), (4 + step, second + 4)]
    assert boxes(sheet, GREEN) == [(4 + 2 * step, 4)]
    assert (pixels == RED).all(-1).sum() == 3 * 128 * 64  # twice as large as the files
    for x in range(4):  # query, and rank, similarity and path
        assert (pixels[134:174, 4 + x * step : 4 + (x + 1) * step] < 100).any()
    assert (pixels[second:, 4 + 2 * step :] == 255).all()


def test_labels_say_rank_similarity_camera_and_the_end_of_the_path(tmp_path: Path) -> None:
    query = paint(tmp_path / "query.png", BLUE)

    def label(line: int, **changed: Any) -> np.ndarray:
        rows = [{**row(1, "a.png"), **changed}]
        pixels = np.asarray(result_sheet([query], [rows], root=tmp_path).convert("L"))
        top = 4 + 128 + 14 * line
        return pixels[top : top + 14, 118:]

    assert (label(0) != label(0, rank=2)).any()
    assert (label(0) != label(0, similarity=0.1)).any()
    assert (label(1) != label(1, camid=4)).any()
    assert (label(1, camid=-1) == 255).all()
    assert (label(1, camera="gate") != label(1)).any()
    long = "x/" * 100
    assert (label(2, path=f"{long}a.jpg") == label(2, path=f"y/{long}a.jpg")).all()
    assert (label(2, path=f"{long}a.jpg") != label(2, path=f"{long}b.jpg")).any()
    assert (label(2, path="图") < 100).any()


def test_many_results_take_several_lines(tmp_path: Path) -> None:
    query = paint(tmp_path / "query.png", BLUE)
    paint(tmp_path / "red.png", RED)
    sheet = result_sheet([query], [[row(i, "red.png") for i in range(1, 15)]], root=tmp_path)
    lines = [y for _, y in boxes(sheet, RED)]
    assert [lines.count(y) for y in sorted(set(lines))] == [12, 2]


def test_images_are_found_below_their_own_root_or_another(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    query = paint(tmp_path / "query.png", BLUE)
    paint(tmp_path / "old" / "a.png", RED)
    paint(tmp_path / "a.png", GREEN)
    rows = [row(1, "a.png", root=str(tmp_path / "old"))]
    assert boxes(result_sheet([query], [rows]), RED)
    assert boxes(result_sheet([query], [rows], tmp_path), GREEN)
    lost = np.asarray(result_sheet([query], [[row(1, "lost.png")]]))
    assert (lost[4:132, 118:182] == 232).all(-1).any()  # grey, and says that it cannot be read


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no queries"):
        result_sheet([], [])
