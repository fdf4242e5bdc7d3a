"""Embeddings on disk: written shard by shard, read as a whole or a shard at a time.

A folder of embeddings holds metadata, `embeddings.json`, and shards, `part-00000.parquet` and so on
(or `.safetensors`). Each has the next `shard_size` images of the list whose fingerprint is in the
metadata; the last has the rest. Every shard contains the metadata's `id`, so that a shard of other
embeddings is recognised. Files get their names, by renaming, only when they are complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rga_timm.data.text_file import write_text
from rga_timm.evaluation.embedding.shards import FORMATS, Shard, ShardError, StoredEmbeddings

METADATA = "embeddings.json"
FORMAT_VERSION = 1

# The metadata that decide the numbers, or which of them are in which shard. Paths, device and batch
# size do not. (`differences` also compares the folder of images that are no data set.)
DECISIVE = (
    "format_version", "model", "weights_sha256", "img_size", "interpolation", "mean", "std",
    "feature", "flip", "scales", "amp_dtype", "splits", "fingerprint", "count", "width",
    "shard_format", "shard_size",
)  # fmt: skip


def write_metadata(folder: str | Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a folder of embeddings; create it if needed.

    The metadata are everything in `DECISIVE` but the format's version, and anything else of plain
    JSON types. They are returned as they were written, with version and id.

    Raises:
        FileExistsError: The folder holds embeddings, finished or not.
        ValueError: Something in `DECISIVE` is missing.
    """
    folder = Path(folder)
    if held := holds_embeddings(folder):
        raise FileExistsError(f"{folder} already holds embeddings ({held})")
    metadata = {"format": "rga_timm embeddings", "format_version": FORMAT_VERSION, **metadata}
    if lacking := [name for name in DECISIVE if name not in metadata]:
        raise ValueError(f"the metadata lack {', '.join(lacking)}")
    if metadata["shard_format"] not in FORMATS:
        raise ValueError(f"shard_format must be one of {', '.join(FORMATS)}")
    metadata["id"] = _id_of(metadata)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / METADATA, json.dumps(metadata, indent=2, allow_nan=False) + "\n")
    return json.loads(json.dumps(metadata))


def holds_embeddings(folder: str | Path) -> str | None:
    """Return the name of the metadata or of a shard in a folder; None if there is neither."""
    folder = Path(folder)
    if (folder / METADATA).exists():
        return METADATA
    return next((path.name for name in FORMATS for path in folder.glob(f"part-*.{name}")), None)


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """Read the metadata of a folder of embeddings.

    Raises:
        FileNotFoundError: There are no embeddings.
        ValueError: The metadata are damaged, or of another version of the format.
    """
    path = Path(folder) / METADATA
    if not path.is_file():
        what = "holds no embeddings" if path.parent.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"{path.parent} {what}: there is no {path}. rga-timm embed writes such folders"
        )
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also of text that is not UTF-8
        raise ValueError(f"{path} is not JSON: {error}") from error
    version = metadata.get("format_version") if isinstance(metadata, dict) else None
    if version is None:
        raise ValueError(f"{path} is not the metadata of embeddings")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} is of version {version} of the format; this rga_timm reads version "
            f"{FORMAT_VERSION}. Make the embeddings again, or take the rga_timm that made them"
        )
    if lacking := [name for name in (*DECISIVE, "id") if name not in metadata]:
        raise ValueError(f"{path} lacks {', '.join(lacking)}")
    if metadata["id"] != _id_of(metadata):
        raise ValueError(f"{path} was changed after it was written: its id does not fit")
    return metadata


read_stamp = read_metadata  # its name in earlier versions


def differences(stored: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the decisive differences of two folders' metadata: `flip (false there, true now)`.

    A data set is known by its fingerprint, and may have moved. Another plain folder may have images
    of the same names, so its `root` must be the same.
    """
    names = [name for name in DECISIVE if name != "format_version"]
    if not new.get("dataset"):
        names.append("root")
    # As JSON, in which a tuple and a list are the same.
    pairs = [(name, json.dumps(stored.get(name)), json.dumps(new.get(name))) for name in names]
    return [f"{name} ({there} there, {now} now)" for name, there, now in pairs if there != now]


def shard_images(metadata: Mapping[str, Any], index: int) -> range:
    """Return which images of the list are in a shard."""
    start = index * metadata["shard_size"]
    return range(start, min(start + metadata["shard_size"], metadata["count"]))


def shard_count(metadata: Mapping[str, Any]) -> int:
    """Count the shards of complete embeddings."""
    return -(-metadata["count"] // metadata["shard_size"])


def write_shard(
    folder: str | Path, metadata: Mapping[str, Any], index: int, embeddings: StoredEmbeddings
) -> Path:
    """Write the embeddings of the images `shard_images`.

    Raises:
        ValueError: There are too many or too few, or features that are not finite.
        ImportError: pyarrow is not installed, which Parquet needs.
    """
    shard = _shard(folder, metadata, index)
    if embeddings.features.shape != shard.shape:
        raise ValueError(
            f"shard {index} takes features of shape {shard.shape}, got {embeddings.features.shape}"
        )
    broken = np.flatnonzero(~np.isfinite(embeddings.features).all(axis=1))
    if len(broken):
        raise ValueError(
            f"the features of {len(broken)} images, such as {embeddings.paths[broken[0]]}, are not "
            "finite. float16 ends at 65504: use bfloat16 or full precision"
        )
    shard.write(embeddings)
    return shard.path


def missing_shards(folder: str | Path, metadata: Mapping[str, Any]) -> dict[int, str]:
    """Check all shards without reading the embeddings.

    Returns:
        From the number of a shard to its problem, such as `part-00003.parquet is missing`.
    """
    wrong = {}
    for index in range(shard_count(metadata)):
        try:
            _shard(folder, metadata, index).check()
        except ShardError as error:
            wrong[index] = str(error)
    return wrong


def iter_embeddings(folder: str | Path) -> Iterator[StoredEmbeddings]:
    """Read the embeddings of a folder a shard at a time, in order, after a check of all shards.

    Raises:
        FileNotFoundError: There are no embeddings.
        ValueError: Another version of the format; shards that are missing, broken or of other
            embeddings.
        ImportError: The shards are Parquet, and pyarrow is not installed.
    """
    metadata = read_metadata(folder)
    if wrong := missing_shards(folder, metadata):
        listed = [*wrong.values()][:5] + ["..."] * (len(wrong) > 5)
        raise ValueError(
            f"{folder} is not complete, {len(wrong)} of its {shard_count(metadata)} shards are "
            f"missing or unusable: {'; '.join(listed)}. Run rga-timm embed again with --resume"
        )
    for index in range(shard_count(metadata)):
        try:
            yield _shard(folder, metadata, index).read()
        except ShardError as error:
            raise ValueError(
                f"{folder}: {error}. Delete it, and run rga-timm embed again with --resume"
            ) from error


def read_embeddings(folder: str | Path) -> StoredEmbeddings:
    """Read all embeddings of a folder, `count * width * 4` bytes; errors as `iter_embeddings`."""
    metadata = read_metadata(folder)
    count = metadata["count"]
    features = np.empty((count, metadata["width"]), dtype=np.float32)
    ids = np.empty((3, count), dtype=np.int64)
    paths: list[str] = []
    splits: list[str] = []
    for shard in iter_embeddings(folder):
        rows = slice(len(paths), len(paths) + len(shard))
        features[rows] = shard.features
        ids[:, rows] = shard.pids, shard.camids, shard.tracklets
        paths += shard.paths
        splits += shard.splits
    return StoredEmbeddings(features, paths, splits, *ids)


def _id_of(metadata: Mapping[str, Any]) -> str:
    decisive = {name: metadata[name] for name in DECISIVE}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _shard(folder: str | Path, metadata: Mapping[str, Any], index: int) -> Shard:
    # The mark distinguishes it from all other shards, of this folder and of others.
    path = Path(folder) / f"part-{index:05d}.{metadata['shard_format']}"
    rows = len(shard_images(metadata, index))
    return Shard(path, f"{metadata['id']}/{index}", (rows, metadata["width"]))
