"""Stored embeddings, and the files that hold them: a shard as Parquet or safetensors.

Parquet: columns path, split (string), pid, camid, tracklet (int64) and embedding (a list of D
float32 of fixed size). Safetensors: tensors of the same names; path and split are the bytes of a
JSON list of strings. Both have a mark, which says what they are a part of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rga_timm.data.text_file import whole_file

_MARK = "rga_timm"  # the key of the mark in either format's metadata
_IDS = {"pid": "pids", "camid": "camids", "tracklet": "tracklets"}
_TEXTS = {"path": "paths", "split": "splits"}


@dataclass(frozen=True, eq=False)
class StoredEmbeddings:
    """The features of n images, with their paths and ids.

    Attributes:
        features: (n, D) float32, as the model gave them.
        paths: Of the images, relative to `root` in the metadata, with forward slashes.
        splits: `query`, `gallery` or `train`; the empty string for images of a plain folder.
        pids: (n,) int64 person ids; -1 if they are not known.
        camids: (n,) int64 camera ids; -1 if they are not known.
        tracklets: (n,) int64 tracklet numbers; -1 for images without a tracklet.
    """

    features: np.ndarray
    paths: list[str]
    splits: list[str]
    pids: np.ndarray
    camids: np.ndarray
    tracklets: np.ndarray

    def __post_init__(self) -> None:
        n, splits, shape = len(self.paths), len(self.splits), np.shape(self.features)
        if len(shape) != 2 or shape[0] != n or splits != n:
            raise ValueError(f"{n} paths, {splits} splits, features {shape} do not fit together")
        shapes = [np.shape(ids) for ids in (self.pids, self.camids, self.tracklets)]
        if shapes != [(n,)] * 3:
            raise ValueError(f"pids, camids and tracklets must be ({n},), got {shapes}")

    def __len__(self) -> int:
        return len(self.paths)


class ShardError(Exception):
    """A shard is missing or invalid. The message begins with the file's name."""


class Shard(NamedTuple):
    """A file of embeddings, and what must be in it."""

    path: Path  # its suffix is the format
    mark: str
    shape: tuple[int, int]  # number and width of the embeddings

    @property
    def _format(self) -> _Format:
        return _FORMATS[self.path.suffix[1:]]

    def write(self, embeddings: StoredEmbeddings) -> None:
        """Write the file, whole or not at all."""
        with whole_file(self.path) as temporary:
            self._format.write(temporary, embeddings, self.mark)

    def check(self) -> None:
        """Raise a ShardError unless the file is complete; the embeddings are not read."""
        name = self.path.name
        if not self.path.is_file():
            raise ShardError(f"{name} is missing")
        with _reading(self.path):
            mark, shape = self._format.look(self.path)
        if mark != self.mark:
            raise ShardError(f"{name} is a part of other embeddings")
        if shape != self.shape:
            found, expected = (f"{n} embeddings of width {d}" for n, d in (shape, self.shape))
            raise ShardError(f"{name} holds {found} instead of {expected}")

    def read(self) -> StoredEmbeddings:
        """Check and read the file."""
        self.check()
        with _reading(self.path):
            return self._format.read(self.path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of safetensors and pyarrow for a damaged file into a ShardError."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ShardError(f"{path.name} is broken ({str(error).rstrip('.')})") from error


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "embeddings in Parquet need pyarrow: pip install 'rga-timm[data]'; or write them as "
            "safetensors"
        ) from error
    return pyarrow


def _write_parquet(path: Path, embeddings: StoredEmbeddings, mark: str) -> None:
    pa, values = _pyarrow(), vars(embeddings)
    flat = pa.array(np.ascontiguousarray(embeddings.features, dtype=np.float32).reshape(-1))
    arrays = {name: pa.array(values[field], pa.string()) for name, field in _TEXTS.items()}
    arrays |= {name: pa.array(values[field], pa.int64()) for name, field in _IDS.items()}
    arrays["embedding"] = pa.FixedSizeListArray.from_arrays(flat, embeddings.features.shape[1])
    pa.parquet.write_table(
        pa.table(arrays).replace_schema_metadata({_MARK: mark}),
        path,
        use_dictionary=["split", "pid", "camid", "tracklet"],  # with few different values
        write_page_checksum=True,
    )


def _parquet_file(path: Path) -> Any:
    return _pyarrow().parquet.ParquetFile(path, page_checksum_verification=True)


def _look_into_parquet(path: Path) -> tuple[str | None, tuple[int, int]]:
    with _parquet_file(path) as file:
        schema = file.schema_arrow
        mark = (schema.metadata or {}).get(_MARK.encode(), b"").decode()
        index = schema.get_field_index("embedding")
        # Lists of variable size have no list_size: those are not ours.
        width = getattr(schema.field(index).type, "list_size", -1) if index >= 0 else -1
        return mark, (file.metadata.num_rows, width)


def _read_parquet(path: Path) -> StoredEmbeddings:
    with _parquet_file(path) as file:
        (columns,) = file.read().combine_chunks().to_batches()
    embedding = columns["embedding"].flatten().to_numpy()
    features = embedding.reshape(len(columns), -1).copy()  # writable
    ids = {field: columns[name].to_numpy().copy() for name, field in _IDS.items()}
    texts = {field: columns[name].to_pylist() for name, field in _TEXTS.items()}
    return StoredEmbeddings(features=features, **ids, **texts)


def _write_safetensors(path: Path, embeddings: StoredEmbeddings, mark: str) -> None:
    values = vars(embeddings)
    tensors = {"embedding": np.ascontiguousarray(embeddings.features, dtype=np.float32)}
    for name, field in _IDS.items():
        tensors[name] = np.ascontiguousarray(values[field], dtype=np.int64)
    for name, field in _TEXTS.items():
        # As tensors, because the metadata of safetensors are limited in size.
        tensors[name] = np.frombuffer(json.dumps(values[field]).encode(), dtype=np.uint8)
    save_file(tensors, path, metadata={_MARK: mark})


def _look_into_safetensors(path: Path) -> tuple[str | None, tuple[int, int]]:
    with safe_open(path, framework="numpy") as file:
        rows, width = file.get_slice("embedding").get_shape()
        return (file.metadata() or {}).get(_MARK), (rows, width)


def _read_safetensors(path: Path) -> StoredEmbeddings:
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in ("embedding", *_IDS, *_TEXTS)}
    texts = {field: json.loads(tensors[name].tobytes()) for name, field in _TEXTS.items()}
    ids = {field: tensors[name] for name, field in _IDS.items()}
    return StoredEmbeddings(features=tensors["embedding"], **ids, **texts)


class _Format(NamedTuple):
    write: Callable[[Path, StoredEmbeddings, str], None]
    look: Callable[[Path], tuple[str | None, tuple[int, int]]]  # mark, (rows, width)
    read: Callable[[Path], StoredEmbeddings]


_FORMATS = {
    "parquet": _Format(_write_parquet, _look_into_parquet, _read_parquet),
    "safetensors": _Format(_write_safetensors, _look_into_safetensors, _read_safetensors),
}
FORMATS = tuple(_FORMATS)
