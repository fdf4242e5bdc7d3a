"""Folders of stored embeddings, written by pyarrow as their format says."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def clustered(
    identities: int, images: int, width: int = 16, *, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features (identities * images, width), not normalised, and their pids from 1."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((identities, width))
    pids = np.repeat(np.arange(identities), images)
    features = centres[pids] + noise * rng.standard_normal((len(pids), width))
    return (7 * features).astype(np.float32), pids + 1


def write_folder(
    folder: Path,
    features: np.ndarray,
    *,
    paths: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    pids: np.ndarray | None = None,
    camids: np.ndarray | None = None,
    shard_size: int = 100,
    **stamp: Any,
) -> Path:
    """A folder with these embeddings; further keyword arguments stand in its stamp."""
    n, width = features.shape
    columns = {
        "path": list(paths) if paths is not None else [f"images/{i:05d}.jpg" for i in range(n)],
        "split": list(splits) if splits is not None else ["gallery"] * n,
        "pid": pids if pids is not None else np.full(n, -1),
        "camid": camids if camids is not None else np.arange(n) % 5,
        "tracklet": np.full(n, -1),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), width),
    }
    table = pa.table(columns)
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, n, shard_size)):
        pq.write_table(table.slice(start, shard_size), folder / f"part-{number:05d}.parquet")
    made = {
        "format": 1,
        "model": "test_rga_resnet",
        "checkpoint": "untrained",
        "preprocessing": {
            "input_size": [3, 64, 32],
            "interpolation": "bilinear",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        "feature": "embedding",
        "flip": False,
        "scales": [1.0],
        "width": width,
        "count": n,
        "shard_size": shard_size,
        "root": str(folder.parent),
        **stamp,
    }
    (folder / "embeddings.json").write_text(json.dumps(made))
    return folder
