"""Conditions of a query hold together, whatever text a user gives for one of them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from stored_folder import clustered, write_folder

from rga_timm.search import SearchIndex, conditions

pytestmark = pytest.mark.faults


def cameras(index: SearchIndex, clause: str | None, queries: np.ndarray) -> set[int]:
    """The cameras of all rows that fulfil a condition."""
    return {row["camid"] for row in index.query(queries[:1], 300, where=clause)[0]}


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("true", {1}),
        ("camid = 2 OR true", {1}),
        ("camid = 2", set()),
        ("true -- a comment", {1}),
        ("true /* a comment */", {1}),
        ("place = ')' OR pid > 0", {1}),
        ("(pid > 0) OR (true)", {1}),
    ],
)
def test_the_camera_holds_whatever_else_is_asked(
    index: SearchIndex, queries: np.ndarray, where: str, left: set[int]
) -> None:
    clause = conditions(index, where=where, camera=["1"])
    assert cameras(index, clause, queries) == left


@pytest.mark.parametrize(
    "where",
    [
        "camid = 2) OR (true",
        "true) --",
        "true) OR (true --",
        "(true",
        "true)",
        "true /*",
        "'",
        "",
        "camid",
        "true LIMIT 3",
        "true; DROP TABLE embeddings",
        "true UNION SELECT 1",
        "camid = 2 AND",
        "nobody = 3",
    ],
)
def test_what_is_not_one_whole_condition_is_refused(index: SearchIndex, where: str) -> None:
    with pytest.raises(ValueError, match="--where") as error:
        conditions(index, where=where, camera=["1"])
    assert "\n" not in str(error.value)


def test_names_of_cameras_are_text(index: SearchIndex, queries: np.ndarray) -> None:
    clause = conditions(index, camera=["1') OR ('1' = '1", "2"])
    assert cameras(index, clause, queries) == {2}
    clause = conditions(index, not_camera=["1", "') OR true OR ('"])
    assert cameras(index, clause, queries) == {0, 2, 3, 4}


def test_an_index_without_cameras_or_times_says_so(tmp_path: Path) -> None:
    features, _ = clustered(3, 2)
    unknown = np.full(6, -1)
    folders = [
        write_folder(tmp_path / "images", features, camids=unknown),
        write_folder(tmp_path / "made-up", features, cameras=False),
    ]
    for number, folder in enumerate(folders):
        index = SearchIndex.build(tmp_path / f"{number}", folder)
        for asked in ({"camera": ["1"]}, {"not_camera": ["1"]}):
            with pytest.raises(ValueError, match="the index has no cameras to choose from"):
                conditions(index, **asked)
        with pytest.raises(ValueError, match="the index has no column time"):
            conditions(index, after=datetime(2024, 5, 1))
        assert conditions(index) is None
