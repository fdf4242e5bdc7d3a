"""From a folder of stored embeddings to the rows of an index."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from rga_timm.evaluation.embedding.store import StoredEmbeddings, iter_embeddings, read_stamp
from rga_timm.search.columns import Columns

if TYPE_CHECKING:
    import pyarrow as pa

ROOT, PATH, EMBEDDING = "root", "path", "embedding"
KEY = (ROOT, "split", PATH)  # which image it is, and as what
IDS = ("pid", "camid", "tracklet")
# What of a stamp, beside the model, decides whether embeddings can be compared. The precision that
# they were computed in does not.
_DECIDES = (
    "img_size",
    "interpolation",
    "mean",
    "std",
    "feature",
    "flip",
    "scales",
    "width",
)
_MODEL = ("model", "checkpoint", "weights_sha256")
_METADATA = b"rga_timm"
_BATCH = 8192  # rows that LanceDB gets at a time; of 512 numbers, 16 MiB


class Rows:
    """What a folder of stored embeddings puts into an index, read a shard at a time.

    Args:
        folder: of stored embeddings.
        columns: a CSV or Parquet file with further columns, keyed by `path`.
        splits: which splits to take; empty for all.
        like: the schema of rows that these are to fit, as `Columns` does it.

    Attributes:
        stamp: what the embeddings were made by and of.
        schema: of the rows, with the stamp in its metadata.

    Raises:
        FileNotFoundError: there are no stored embeddings in the folder.
        ValueError: their stamp is none, or as `Columns`.
    """

    def __init__(
        self,
        folder: str | Path,
        columns: str | Path | None = None,
        splits: Collection[str] = (),
        like: pa.Schema | None = None,
    ) -> None:
        import pyarrow as pa

        self.folder = folder
        self.stamp = read_stamp(folder)
        self.splits = frozenset(splits)
        own = [
            *(pa.field(name, pa.string()) for name in KEY),
            *(pa.field(name, pa.int64()) for name in IDS),
            pa.field(EMBEDDING, pa.list_(pa.float32(), self.stamp["width"])),
        ]
        self.columns = Columns(columns, [field.name for field in own], like) if columns else None
        further = self.columns.fields if self.columns else []
        metadata = {_METADATA: json.dumps({"stamp": self.stamp})}
        self.schema = pa.schema([*own[:-1], *further, own[-1]], metadata=metadata)

    def keys(self) -> Counter[tuple[str, str, str]]:
        """Root, split and path of every row, with how often each comes: a pass over all."""
        counts: Counter[tuple[str, str, str]] = Counter()
        for shard in self._shards():
            counts.update((self._root, *key) for key in zip(shard.splits, shard.paths, strict=True))
        return counts

    def batches(self, progress: bool = True) -> Iterator[pa.RecordBatch]:
        """The rows, with the features L2-normalised.

        Raises:
            ValueError: there are none, a feature has no direction, or none of them is in the table
                of further columns.
        """
        import pyarrow as pa

        total = None if self.splits else self.stamp["count"]
        count = 0
        with tqdm(total=total, desc="index", unit=" images", disable=not progress) as bar:
            for shard in self._shards():
                cells = [
                    pa.array([self._root] * len(shard.paths), pa.string()),
                    pa.array(shard.splits, pa.string()),
                    pa.array(shard.paths, pa.string()),
                    *(pa.array(getattr(shard, f"{name}s"), pa.int64()) for name in IDS),
                    *(self.columns.take(shard.paths) if self.columns else []),
                    self._vectors(shard),
                ]
                rows = pa.Table.from_arrays(cells, schema=self.schema)
                for batch in rows.to_batches(max_chunksize=_BATCH):
                    yield batch
                    bar.update(len(batch))
                count += len(rows)
        if not count:
            wanted = f" of the splits {', '.join(sorted(self.splits))}" if self.splits else ""
            raise ValueError(f"{self.folder} holds no embeddings{wanted}")
        if self.columns:
            self.columns.check_found()

    @property
    def _root(self) -> str:
        return str(self.stamp.get("root", ""))

    def _shards(self) -> Iterator[StoredEmbeddings]:
        """The shards, without the rows of other splits."""
        for shard in iter_embeddings(self.folder):
            if not self.splits:
                yield shard
                continue
            kept = [row for row, split in enumerate(shard.splits) if split in self.splits]
            if kept:
                yield StoredEmbeddings(
                    features=shard.features[kept],
                    paths=[shard.paths[row] for row in kept],
                    splits=[shard.splits[row] for row in kept],
                    pids=shard.pids[kept],
                    camids=shard.camids[kept],
                    tracklets=shard.tracklets[kept],
                )

    def _vectors(self, shard: StoredEmbeddings) -> pa.FixedSizeListArray:
        import pyarrow as pa

        width = self.stamp["width"]
        if shard.features.ndim != 2 or shard.features.shape[1] != width:
            raise ValueError(
                f"{self.folder}: features of shape {shard.features.shape} where the stamp says "
                f"they are {width} wide"
            )
        try:
            vectors = normalize(shard.features)
        except DirectionlessError as error:
            path = shard.paths[error.row]
            raise ValueError(f"{self.folder}: the embedding of {path} {error}") from error
        return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)


class DirectionlessError(ValueError):
    """A feature that cannot be normalised; `row` says which one."""

    def __init__(self, row: int) -> None:
        super().__init__("is zero or not finite, so it has no direction")
        self.row = row


def normalize(features: np.ndarray) -> np.ndarray:
    """L2-normalised, (n, D) float32, of features (n, D).

    Raises:
        DirectionlessError: one is zero or not finite.
    """
    # In double precision, in which no float32 is so large or small that its square is lost.
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if len(bad):
        raise DirectionlessError(int(bad[0]))
    return (features / norms).astype(np.float32)


def stamp_of(schema: pa.Schema) -> dict[str, Any] | None:
    """The stamp that `Rows` left in a schema; None for the schema of another table."""
    metadata = (schema.metadata or {}).get(_METADATA)
    return json.loads(metadata)["stamp"] if metadata else None


def check_same_features(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise a ValueError that says what differs, if two stamps' embeddings cannot be compared.

    A model is the same if its weights are, wherever they lay.
    """
    names: tuple[str, ...] = _DECIDES
    if old["weights_sha256"] != new["weights_sha256"]:
        names = (*_MODEL, *names)
    differences = [
        f"{name}: {old.get(name)!r} in the index, {new.get(name)!r} in these"
        for name in names
        if old.get(name) != new.get(name)
    ]
    if differences:
        raise ValueError(
            "the embeddings cannot be compared with those in the index:\n  "
            + "\n  ".join(differences)
        )
