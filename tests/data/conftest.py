from pathlib import Path

import pytest
from noise_image import write_noise


@pytest.fixture
def market_root(tmp_path: Path) -> Path:
    """Two people to train on, two to test on, a distractor, junk, and what operating systems leave.

    The names are written out of order, and the train pids are not in the order of their text.
    """
    root = tmp_path / "Market-1501-v15.09.15"
    names = {
        "bounding_box_train": [
            "1488_c3s3_065527_02.jpg.jpg",
            "0007_c2s1_000551_01.jpg",
            "0007_c1s1_000451_03.jpg",
        ],
        "query": ["0002_c1s1_000776_00.jpg", "0011_c6s2_000001_00.jpg"],
        "bounding_box_test": [
            "0002_c4s1_000801_02.jpg",
            "0011_c5s2_000002_01.jpg",
            "0000_c6s1_000003_01.jpg",
            "-1_c1s1_000401_03.jpg",
        ],
    }
    seed = 0
    for folder, files in names.items():
        for name in files:
            write_noise(root / folder / name, seed=seed)
            seed += 1
    for stray in ("bounding_box_train/Thumbs.db", "query/._0002_c1s1_000776_00.jpg"):
        (root / stray).write_bytes(b"not an image")
    return root
