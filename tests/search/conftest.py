"""An index of drawn embeddings."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from stored_folder import clustered, write_folder

from rga_timm.search import SearchIndex

START = datetime(2024, 5, 1, 12)


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray]:
    return clustered(60, 5)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clustered(60, 1, seed=0, noise=0.7)[0][:10]


@pytest.fixture
def times(tmp_path: Path) -> Path:
    """An image a minute, and where it was taken."""
    lines = [
        f"images/{i:05d}.jpg,{(START + timedelta(minutes=i)).isoformat()},{'gate' if i % 3 else ''}"
        for i in range(300)
    ]
    file = tmp_path / "times.csv"
    file.write_text("\n".join(["path,time,place", *lines]) + "\n")
    return file


@pytest.fixture
def folder(tmp_path: Path, people: tuple[np.ndarray, np.ndarray]) -> Path:
    return write_folder(tmp_path / "embeddings", people[0], pids=people[1])


@pytest.fixture
def index(tmp_path: Path, folder: Path, times: Path) -> SearchIndex:
    return SearchIndex.build(tmp_path / "db", folder, columns=times)
