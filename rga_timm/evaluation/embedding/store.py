"""Embeddings on disk: written shard by shard, read as a whole or a shard at a time.

A folder of embeddings holds a stamp, `embeddings.json`, and shards, `part-00000.parquet` and so on
(or `.safetensors`), each with `shard_size` images in the order of the list that the stamp has the
fingerprint of; the last with what is left. Every shard carries the stamp's `id`, so that a shard of
other embeddings that got into the folder is found out.

Files get their names when they are complete, by renaming. So what is there is whole, whenever the
writing was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rga_timm.evaluation.embedding import shards
from rga_timm.evaluation.embedding.shards import FORMATS, ShardError, StoredEmbeddings

STAMP = "embeddings.json"
FORMAT_VERSION = 1

# What of a stamp decides the numbers, or which of them are in which shard. Where the images and the
# weights lay, on what they were computed and in what batches is not among it. (`differences` looks
# at the folder of images that are no data set.)
DECISIVE = (
    "format_version",
    "model",
    "weights_sha256",
    "img_size",
    "interpolation",
    "mean",
    "std",
    "feature",
    "flip",
    "scales",
    "amp_dtype",
    "splits",
    "fingerprint",
    "count",
    "width",
    "shard_format",
    "shard_size",
)


def write_stamp(folder: str | Path, stamp: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a folder of embeddings.

    Args:
        folder: made where it does not exist.
        stamp: everything in `DECISIVE` but the format's version, and whatever else is worth
            knowing; plain JSON types.

    Returns:
        The stamp as it was written, with version and id.

    Raises:
        FileExistsError: the folder holds embeddings, finished or not.
        ValueError: something decisive is not in the stamp.
    """
    folder = Path(folder)
    if held := holds_embeddings(folder):
        raise FileExistsError(f"{folder} already holds embeddings ({held})")
    stamp = {"format": "rga_timm embeddings", "format_version": FORMAT_VERSION, **stamp}
    if lacking := [name for name in DECISIVE if name not in stamp]:
        raise ValueError(f"the stamp lacks {', '.join(lacking)}")
    if stamp["shard_format"] not in FORMATS:
        raise ValueError(f"shard_format must be one of {', '.join(FORMATS)}")
    stamp["id"] = _id_of(stamp)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{STAMP}.tmp"
    temporary.write_text(json.dumps(stamp, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, folder / STAMP)
    return json.loads(json.dumps(stamp))


def holds_embeddings(folder: str | Path) -> str | None:
    """The name of a stamp or a shard in a folder; None if there is neither."""
    folder = Path(folder)
    if (folder / STAMP).exists():
        return STAMP
    return next((path.name for name in FORMATS for path in folder.glob(f"part-*.{name}")), None)


def read_stamp(folder: str | Path) -> dict[str, Any]:
    """What the embeddings of a folder are, and what they were made of.

    Raises:
        FileNotFoundError: there is no stamp.
        ValueError: it is not one, or of another version of the format.
    """
    path = Path(folder) / STAMP
    if not path.is_file():
        what = "holds no embeddings" if path.parent.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"{path.parent} {what}: there is no {path}. rga-timm embed writes such folders"
        )
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also of text that is not UTF-8
        raise ValueError(f"{path} is not JSON: {error}") from error
    version = stamp.get("format_version") if isinstance(stamp, dict) else None
    if version is None:
        raise ValueError(f"{path} is not the stamp of embeddings")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} is of version {version} of the format; this rga_timm reads version "
            f"{FORMAT_VERSION}. Make the embeddings again, or take the rga_timm that made them"
        )
    if lacking := [name for name in (*DECISIVE, "id") if name not in stamp]:
        raise ValueError(f"{path} lacks {', '.join(lacking)}")
    if stamp["id"] != _id_of(stamp):
        raise ValueError(f"{path} was changed after it was written: its id does not fit")
    return stamp


def differences(stored: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Where two stamps differ in what decides the numbers.

    A data set is known by its fingerprint, and may have moved. Of a plain folder only the names of
    its images are known, which another folder may have too: so `root` must be the same.

    Args:
        stored: a folder's stamp.
        new: what would be written now.

    Returns:
        A text for each difference, such as `flip (false there, true now)`.
    """
    # As JSON, in which a tuple and a list are the same. The version is the writer's to add.
    names = [name for name in DECISIVE if name != "format_version"]
    if not new.get("dataset"):
        names.append("root")
    pairs = [(name, json.dumps(stored.get(name)), json.dumps(new.get(name))) for name in names]
    return [f"{name} ({there} there, {now} now)" for name, there, now in pairs if there != now]


def shard_name(stamp: Mapping[str, Any], index: int) -> str:
    """The file of a shard."""
    return f"part-{index:05d}.{stamp['shard_format']}"


def shard_images(stamp: Mapping[str, Any], index: int) -> range:
    """Which images of the list are in a shard."""
    start = index * stamp["shard_size"]
    return range(start, min(start + stamp["shard_size"], stamp["count"]))


def shard_count(stamp: Mapping[str, Any]) -> int:
    """How many shards there are when all are written."""
    return -(-stamp["count"] // stamp["shard_size"])


def write_shard(
    folder: str | Path, stamp: Mapping[str, Any], index: int, embeddings: StoredEmbeddings
) -> Path:
    """Write a shard, or none of it.

    Args:
        folder: begun by `write_stamp`.
        stamp: the folder's.
        index: which shard, from 0.
        embeddings: of the images `shard_images(stamp, index)`.

    Returns:
        The file.

    Raises:
        ValueError: the number or the width of the embeddings is not the stamp's, or some are not
            finite.
        ImportError: pyarrow is not there, which Parquet needs.
    """
    expected = (len(shard_images(stamp, index)), stamp["width"])
    if embeddings.features.shape != expected:
        raise ValueError(
            f"shard {index} takes features of shape {expected}, got {embeddings.features.shape}"
        )
    broken = np.flatnonzero(~np.isfinite(embeddings.features).all(axis=1))
    if len(broken):
        raise ValueError(
            f"the features of {len(broken)} images, such as {embeddings.paths[broken[0]]}, are not "
            "finite. In float16 numbers above 65504 are infinite: bfloat16 or full precision have "
            "room for more"
        )
    path = Path(folder) / shard_name(stamp, index)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        shards.write_shard(temporary, stamp["shard_format"], embeddings, _mark(stamp, index))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def missing_shards(folder: str | Path, stamp: Mapping[str, Any]) -> dict[int, str]:
    """The shards that are not there, or are not what they should be.

    Only the beginnings and ends of files are read, not the embeddings.

    Returns:
        From the number of a shard to what is wrong, such as `part-00003.parquet is missing`.
    """
    wrong = {}
    for index in range(shard_count(stamp)):
        path = Path(folder) / shard_name(stamp, index)
        try:
            shards.check_shard(path, *_expected(stamp, index))
        except ShardError as error:
            wrong[index] = str(error)
    return wrong


def iter_embeddings(folder: str | Path) -> Iterator[StoredEmbeddings]:
    """The embeddings of a folder, a shard at a time, in order.

    Before the first, the stamp and the presence of all shards are checked.

    Yields:
        The images of a shard.

    Raises:
        FileNotFoundError: there is no stamp.
        ValueError: another version of the format; shards that are missing, broken or of other
            embeddings.
        ImportError: the shards are Parquet, and pyarrow is not there.
    """
    stamp = read_stamp(folder)
    if wrong := missing_shards(folder, stamp):
        listed = [*wrong.values()][:5] + ["..."] * (len(wrong) > 5)
        raise ValueError(
            f"{folder} is not complete, {len(wrong)} of its {shard_count(stamp)} shards are "
            f"missing or unusable: {'; '.join(listed)}. Run rga-timm embed again with --resume"
        )
    for index in range(shard_count(stamp)):
        path = Path(folder) / shard_name(stamp, index)
        try:
            embeddings = shards.read_shard(path, *_expected(stamp, index))
        except ShardError as error:
            raise ValueError(
                f"{folder}: {error}. Delete it, and run rga-timm embed again with --resume"
            ) from error
        yield embeddings


def read_embeddings(folder: str | Path) -> StoredEmbeddings:
    """All embeddings of a folder. They take `count * width * 4` bytes of memory.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `iter_embeddings`.
    """
    stamp = read_stamp(folder)
    count = stamp["count"]
    features = np.empty((count, stamp["width"]), dtype=np.float32)
    pids, camids, tracklets = (np.empty(count, dtype=np.int64) for _ in range(3))
    paths: list[str] = []
    splits: list[str] = []
    for shard in iter_embeddings(folder):
        rows = slice(len(paths), len(paths) + len(shard))
        features[rows], pids[rows] = shard.features, shard.pids
        camids[rows], tracklets[rows] = shard.camids, shard.tracklets
        paths += shard.paths
        splits += shard.splits
    return StoredEmbeddings(features, paths, splits, pids, camids, tracklets)


def _id_of(stamp: Mapping[str, Any]) -> str:
    decisive = {name: stamp[name] for name in DECISIVE}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _mark(stamp: Mapping[str, Any], index: int) -> str:
    """What a shard carries, so that neither another folder's nor another one passes for it."""
    return f"{stamp['id']}/{index}"


def _expected(stamp: Mapping[str, Any], index: int) -> tuple[str, str, int, int]:
    """Format, mark, rows and width of a shard."""
    rows = len(shard_images(stamp, index))
    return stamp["shard_format"], _mark(stamp, index), rows, stamp["width"]
