"""From a folder of stored embeddings, and a table of the user's, to the rows of an index."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rga_timm.data.table_file import TableFile
from rga_timm.evaluation import StoredEmbeddings, iter_embeddings, read_stamp

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDING = "embedding"
KEY = ("root", "split", "path")  # identifies a row
_IDS = ("pid", "camid", "tracklet")
# What decides whether embeddings of the same weights can be compared.
_DECIDES = ("img_size", "interpolation", "mean", "std", "feature", "flip", "scales", "width")
_METADATA = b"rga_timm"
_logger = logging.getLogger(__name__)


@contextmanager
def stream(
    folder: str | Path,
    file: str | Path | None,
    splits: Collection[str],
    like: pa.Schema | None = None,
) -> Iterator[pa.RecordBatchReader]:
    """Rows of stored embeddings, which LanceDB reads in its own thread, a shard at a time.

    An error while they are read leaves the block as it is, although LanceDB keeps only its text.

    Args:
        folder: Stored embeddings.
        file: CSV or Parquet file with the column `path` and further ones to keep.
        splits: Splits to take; empty for all.
        like: Schema of the index that the rows are added to; cells of CSV get its types.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    metadata = read_stamp(folder)
    fields = [pa.field(name, pa.string()) for name in KEY]
    fields += [pa.field(name, pa.int64()) for name in _IDS]
    fields += [pa.field(EMBEDDING, pa.list_(pa.float32(), metadata["width"]))]
    table = pa.table({"path": pa.array([], pa.string())})
    if file:
        table = _read_table(Path(file), [field.name for field in fields], like)
    fields[-1:-1] = [field for field in table.schema if field.name != "path"]
    schema = pa.schema(fields, metadata={_METADATA: json.dumps({"stamp": metadata})})
    failure: list[BaseException] = []
    is_left = False

    def watched() -> Iterator[pa.RecordBatch]:
        count, missing = 0, 0
        try:
            for shard in iter_embeddings(folder):
                rows = _rows(shard, str(metadata.get("root", "")), table)
                if splits:
                    rows = rows.filter(pc.is_in(rows["split"], value_set=pa.array([*splits])))
                count, missing = count + len(rows), missing + rows["row"].null_count
                yield from rows.select(schema.names).cast(schema).to_batches(8192)
                if is_left:  # by Ctrl-C: LanceDB must not commit
                    raise InterruptedError("the writing was stopped")
            if not count:
                raise ValueError(f"{folder} holds no embeddings of the splits {', '.join(splits)}")
            if file and missing == count:
                raise ValueError(f"{file} is about other images: no path in it is one of {folder}")
            if file and missing:
                _logger.warning("%s has no row for %d of the images", file, missing)
        except (Exception, KeyboardInterrupt) as error:
            failure.append(error)
            raise

    try:
        yield pa.RecordBatchReader.from_batches(schema, watched())
    except Exception as error:
        raise failure[0] if failure else error from None
    finally:
        is_left = True


def _rows(shard: StoredEmbeddings, root: str, table: pa.Table) -> pa.Table:
    """The rows of a shard; `row` is that of the user's table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    vectors = pa.array(normalize(shard.features, shard.paths).ravel())
    found = pc.index_in(pa.array(shard.paths), value_set=table["path"])
    columns: dict[str, Any] = {name: table[name].take(found) for name in table.column_names}
    columns |= {"root": pa.array([root] * len(shard)), "split": shard.splits, "path": shard.paths}
    columns |= {name: getattr(shard, f"{name}s") for name in _IDS}
    width = shard.features.shape[1]
    embedding = pa.FixedSizeListArray.from_arrays(vectors, width)
    return pa.table({**columns, EMBEDDING: embedding, "row": found})


def _read_table(file: Path, reserved: Collection[str], like: pa.Schema | None) -> pa.Table:
    """The user's table, with types that LanceDB takes."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    layout = TableFile(file, expected=("path", "time"))
    types = {**{field.name: field.type for field in like or ()}, "path": pa.string()}
    others = [name for name in layout.columns if name != "path"]
    if not others or len(others) == len(layout.columns):
        raise ValueError(f"{file} must have the column 'path' and others, not {layout.columns}")
    if wrong := [n for n in others if n in (*reserved, "row", "") or n[0] == "_" or "." in n]:
        raise ValueError(f"{file}: a column cannot be called {wrong[0]!r} here; rename it")
    try:
        if layout.is_parquet:
            table = parquet.read_table(file)
        else:
            table = csv.read_csv(
                file,
                read_options=csv.ReadOptions(column_names=layout.columns, skip_rows=1),
                parse_options=csv.ParseOptions(delimiter=layout.delimiter),
                convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=True),
            )
        is_null = pa.types.is_null
        fields = [(f.name, pa.string() if is_null(f.type) else f.type) for f in table.schema]
        table = table.cast(pa.schema(fields))
    except pa.ArrowException as error:
        raise ValueError(f"{file}: {error}") from error
    if "time" in others and not pa.types.is_temporal(table["time"].type):
        raise ValueError(
            f"{file}: 'time' must hold timestamps, in CSV as ISO 8601 text such as "
            "2024-05-01T12:30:00; all of them with an offset from UTC, or none"
        )
    counts = table["path"].value_counts().to_pylist()
    if twice := [count["values"] for count in counts if count["counts"] > 1]:
        raise ValueError(f"{file} has several rows for {twice[0]}")
    return table


def normalize(features: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """L2-normalise features, (n, D), to float32; a ValueError names one that is zero."""
    # In double precision: the square of a float32 neither overflows nor vanishes.
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    usable = np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)
    if not usable.all():
        name = names[int(usable.argmin())]
        raise ValueError(f"the embedding of {name} is zero or not finite: it has no direction")
    return (features / norms).astype(np.float32)


def metadata_of(schema: pa.Schema) -> dict[str, Any] | None:
    """What `stream` wrote into a schema; None for the schema of another table."""
    about = (schema.metadata or {}).get(_METADATA)
    return json.loads(about)["stamp"] if about else None


def check_same_features(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise a ValueError unless an index's embeddings can be compared with others, by metadata.

    The model is the same if its weights are, whatever it is called.
    """
    names = ["model", "checkpoint", "weights_sha256"]
    names = [*(names if old[names[-1]] != new[names[-1]] else []), *_DECIDES]
    differences = [
        f"\n  {name}: {old.get(name)!r} in the index, {new.get(name)!r} in these"
        for name in names
        if old.get(name) != new.get(name)
    ]
    if differences:
        raise ValueError(
            f"the embeddings cannot be compared with those in the index:{''.join(differences)}"
        )
