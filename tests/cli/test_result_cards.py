from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from rga_timm.cli.result_cards import describe_row, search_page


def row(rank: int, path: str, **changed: Any) -> dict[str, Any]:
    about = {"root": "", "path": path, "split": "", "pid": -1, "camid": 3, "tracklet": -1}
    return {"rank": rank, "similarity": 1 - rank / 8, **about, **changed}


def test_a_row_is_described_by_what_is_known() -> None:
    assert describe_row(row(1, "a", camid=-1)) == ""
    known = row(1, "a", pid=7, time=datetime(2024, 5, 1, 12), split="gallery")
    assert describe_row(known) == "person 7, camera 3, 2024-05-01 12:00:00, gallery"
    assert (
        describe_row({**known, "camera": "gate", "time": None}) == "person 7, camera gate, gallery"
    )
    assert describe_row(row(1, "a", camera=None)) == ""


def test_a_page_shows_each_query_before_its_results(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("q.png", "a.png", "old/a.png"):
        Image.new("RGB", (32, 64), "red" if "old" in name else "blue").save(tmp_path / name)
    query, rows = (
        tmp_path / "q.png",
        [row(1, "a.png", root=str(tmp_path / "old")), row(2, "lost/b.png")],
    )
    page = search_page([query, query], [rows, []])
    assert [page.count(text) for text in ("<figure", "<img", "cannot be read")] == [4, 3, 1]
    places = [
        page.index(text) for text in ("q.png", "0.875", "a.png", "0.750", "lost/b.png", "<hr>")
    ]
    assert places[1:] == sorted(places[1:])
    images = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert images[0] != images[1]  # of its own root
    there = [
        part.split('"')[0] for part in search_page([query], [rows[:1]], tmp_path).split('src="')[1:]
    ]
    assert there[0] == there[1]


def test_texts_cannot_bring_markup_into_the_page(tmp_path: Path) -> None:
    page = search_page([tmp_path / "<b>.png"], [[row(1, "<i>.png", camera="<u>")]])
    assert not any(tag in page for tag in ("<i>", "<u>", "<b>.png"))
    assert "&lt;i&gt;.png" in page
