"""Folders of stored embeddings, of any features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rga_timm.evaluation import StoredEmbeddings
from rga_timm.evaluation.embedding.store import (
    shard_count,
    shard_images,
    write_metadata,
    write_shard,
)

DATASET = {"name": "tiny", "query": {"images": 4}, "gallery": {"images": 7}, "fingerprint": "f"}


def clustered(
    identities: int, images: int, width: int = 16, *, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features (identities * images, width), not normalised, and their pids from 1."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((identities, width))
    pids = np.repeat(np.arange(identities), images)
    features = centres[pids] + noise * rng.standard_normal((len(pids), width))
    return (7 * features).astype(np.float32), pids + 1


def small_embeddings(seed: int = 0, tracklets: bool = False) -> StoredEmbeddings:
    """Four queries, of persons 0 to 3 under camera 1, and a gallery under the cameras 1 and 2."""
    rng = np.random.default_rng(seed)
    numbers = [-1] * 4 + [5, 5, 2, 8, 7, 7, 1] if tracklets else [-1] * 11
    return StoredEmbeddings(
        rng.standard_normal((11, 6)).astype(np.float32),
        paths=[f"über/{i}\n'\".jpg" for i in range(11)],
        splits=["query"] * 4 + ["gallery"] * 7,
        pids=np.array([0, 1, 2, 3, 0, 0, 1, 2, 3, 3, 9]),
        camids=np.array([1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 1]),
        tracklets=np.array(numbers),
    )


def small_metadata(**changes: Any) -> dict[str, Any]:
    """Those of `small_embeddings`, of a data set, in shards of 4."""
    return {
        "model": "test_resnet", "weights_sha256": "abc", "img_size": [64, 32],
        "interpolation": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.3],
        "feature": "embedding", "flip": True, "scales": [1.0, 1.25], "amp_dtype": None,
        "splits": ["query", "gallery"], "fingerprint": "list", "count": 11, "width": 6,
        "shard_format": "parquet", "shard_size": 4, "root": "/people", "dataset": DATASET,
        "checkpoint": "model.pth",
    } | changes  # fmt: skip


def write(folder: Path, embeddings: StoredEmbeddings | None = None, **changes: Any) -> Path:
    """A folder with these embeddings, and the metadata of the small ones with these changes."""
    embeddings = embeddings or small_embeddings()
    metadata = write_metadata(folder, small_metadata(**changes))
    for index in range(shard_count(metadata)):
        write_shard(folder, metadata, index, rows_of(embeddings, shard_images(metadata, index)))
    return folder


def rows_of(embeddings: StoredEmbeddings, rows: range) -> StoredEmbeddings:
    part = slice(rows.start, rows.stop)
    return StoredEmbeddings(**{name: value[part] for name, value in vars(embeddings).items()})


def write_folder(
    folder: Path,
    features: np.ndarray,
    *,
    paths: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    pids: np.ndarray | None = None,
    camids: np.ndarray | None = None,
    shard_size: int = 100,
    **metadata: Any,
) -> Path:
    """A folder with these features; further keyword arguments stand in its metadata."""
    n, width = features.shape
    images = StoredEmbeddings(
        features,
        list(paths) if paths is not None else [f"images/{i:05d}.jpg" for i in range(n)],
        list(splits) if splits is not None else ["gallery"] * n,
        pids=pids if pids is not None else np.full(n, -1),
        camids=camids if camids is not None else np.arange(n) % 5,
        tracklets=np.full(n, -1),
    )
    made = {
        "model": "test_rga_resnet", "checkpoint": "untrained", "weights_sha256": "0",
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "flip": False,
        "scales": [1.0], "width": width, "shard_size": shard_size, "dataset": None,
        "root": str(folder.parent), "splits": [""], "count": n, "fingerprint": "0",
    }  # fmt: skip
    return write(folder, images, **{**made, **metadata})
