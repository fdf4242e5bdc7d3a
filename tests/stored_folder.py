"""Folders of stored embeddings, of any features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rga_timm.evaluation import StoredEmbeddings
from rga_timm.evaluation.embedding.store import shard_count, write_shard, write_stamp


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
    made = {
        "model": "test_rga_resnet",
        "checkpoint": "untrained",
        "weights_sha256": "0",
        "img_size": [64, 32],
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "feature": "embedding",
        "flip": False,
        "scales": [1.0],
        "amp_dtype": None,
        "width": width,
        "shard_format": "parquet",
        "shard_size": shard_size,
        "dataset": None,
        "root": str(folder.parent),
        "splits": [""],
        "count": n,
        "fingerprint": "0",
    }
    images = StoredEmbeddings(
        features,
        list(paths) if paths is not None else [f"images/{i:05d}.jpg" for i in range(n)],
        list(splits) if splits is not None else ["gallery"] * n,
        pids=pids if pids is not None else np.full(n, -1),
        camids=camids if camids is not None else np.arange(n) % 5,
        tracklets=np.full(n, -1),
    )
    written = write_stamp(folder, {**made, **stamp})
    for number in range(shard_count(written)):
        part = slice(number * shard_size, (number + 1) * shard_size)
        rows = {name: column[part] for name, column in vars(images).items()}
        write_shard(folder, written, number, StoredEmbeddings(**rows))
    return folder
