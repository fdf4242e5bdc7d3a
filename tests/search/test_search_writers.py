"""Programs that write to one index at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stored_folder import clustered, write_folder

from rga_timm.search import SearchIndex
from rga_timm.search import rows as rows_module

pytestmark = pytest.mark.faults


def test_rows_that_another_program_has_appended_are_known(tmp_path: Path, folder: Path) -> None:
    SearchIndex.build(tmp_path / "db", folder)
    more = write_folder(tmp_path / "x" / "more", clustered(4, 2, seed=1)[0])
    first, second = SearchIndex(tmp_path / "db"), SearchIndex(tmp_path / "db")
    assert first.append(more) == 8
    assert second.append(more) == 0
    assert len(SearchIndex(tmp_path / "db")) == 308


def test_a_second_writer_waits_for_the_first(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SearchIndex.build(tmp_path / "db", folder)
    more = write_folder(tmp_path / "x" / "more", clustered(4, 2, seed=1)[0])
    begun, go_on = threading.Semaphore(0), threading.Event()
    iter_embeddings = rows_module.iter_embeddings

    def slow(folder: Path) -> Iterator[Any]:
        begun.release()
        assert go_on.wait(30)
        yield from iter_embeddings(folder)

    monkeypatch.setattr(rows_module, "iter_embeddings", slow)
    new: list[int] = []
    writers = [
        threading.Thread(target=lambda: new.append(SearchIndex(tmp_path / "db").append(more)))
        for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    assert begun.acquire(timeout=30)
    assert not begun.acquire(timeout=1)  # only one of them reads
    go_on.set()
    for writer in writers:
        writer.join(30)
    assert sorted(new) == [0, 8]
    assert len(SearchIndex(tmp_path / "db")) == 308
