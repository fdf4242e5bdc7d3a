"""Turn stored embeddings and a user's table into the rows of an index."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rga_timm.data.table_file import TableFile
from rga_timm.evaluation import iter_embeddings, read_metadata

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDING = "embedding"
KEY = ["root", "split", "path"]  # identifies a row
_IDS = ("pid", "camid", "tracklet")
# Decides, beside the weights, whether embeddings can be compared.
_DECIDES = ("img_size", "interpolation", "mean", "std", "feature", "flip", "scales", "width")
_METADATA = b"rga_timm"
_logger = logging.getLogger(__name__)


@contextmanager
def stream(
    folder: str | Path, file: str | Path | None = None, splits: Collection[str] = (),
    like: pa.Schema | None = None,
) -> Iterator[pa.RecordBatchReader]:  # fmt: skip
    """Stream rows of stored embeddings, which LanceDB reads in its own thread, a shard at a time.

    A CSV or Parquet `file` with a column `path` has further columns; the schema `like` gives cells
    of CSV their types. The schema holds the embeddings' metadata.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    metadata = read_metadata(folder)
    fields = [pa.field(name, pa.string()) for name in KEY]
    fields += [pa.field(name, pa.int64()) for name in _IDS]
    fields += [pa.field(EMBEDDING, pa.list_(pa.float32(), metadata["width"]))]
    table = pa.table({"path": pa.array([], pa.string())})
    if file:
        table = _read_table(Path(file), [field.name for field in fields], like)
    fields[-1:-1] = [field for field in table.schema if field.name != "path"]
    schema = pa.schema(fields, metadata={_METADATA: json.dumps({"stamp": metadata})})
    failure: list[BaseException] = []  # LanceDB keeps only its text
    is_left = False

    def batches() -> Iterator[pa.RecordBatch]:
        count, missing, zero = 0, 0, 0
        for shard in iter_embeddings(folder):
            features = normalize(shard.features, shard.paths)
            further = table.take(pc.index_in(pa.array(shard.paths), value_set=table["path"]))
            columns: dict[str, Any] = dict(zip(table.column_names, further.columns, strict=True))
            columns |= {name: getattr(shard, f"{name}s") for name in ("split", "path", *_IDS)}
            columns["root"] = pa.array([str(metadata.get("root", ""))] * len(shard))
            vectors = pa.array(features.ravel())
            columns[EMBEDDING] = pa.FixedSizeListArray.from_arrays(vectors, features.shape[1])
            about = {"found": further["path"], "zero": ~features.any(axis=1)}
            rows = pa.table({**columns, **about})
            if splits:
                rows = rows.filter(pc.is_in(rows["split"], value_set=pa.array([*splits])))
            count, missing = count + len(rows), missing + rows["found"].null_count
            zero += rows["zero"].to_pylist().count(True)
            yield from rows.select(schema.names).cast(schema).to_batches(8192)
            if is_left:  # by Ctrl-C: LanceDB must not commit
                raise InterruptedError("the writing was stopped")
        if not count:
            raise ValueError(f"{folder} holds no embeddings of the splits {', '.join(splits)}")
        if file and missing == count:
            raise ValueError(f"{file} is about other images: no path in it is one of {folder}")
        if zero:
            text = "%d of the embeddings are zero: similar to nothing, no query finds them"
            _logger.warning(text, zero)
        if file and missing:
            _logger.warning("%s has no row for %d of the images", file, missing)

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches()
        except (Exception, KeyboardInterrupt) as error:
            failure.append(error)
            raise

    try:
        yield pa.RecordBatchReader.from_batches(schema, watched())
    except Exception as error:
        raise failure[0] if failure else error from None
    finally:
        is_left = True


def _read_table(file: Path, reserved: Collection[str], like: pa.Schema | None) -> pa.Table:
    """Read the user's table, with types that LanceDB takes."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    layout = TableFile(file, expected=("path", "time"))
    names = layout.columns
    if "path" not in names or len(names) < 2:
        raise ValueError(f"{file} must have the column 'path' and others, not {names}")
    for name in {*names} - {"path"}:  # LanceDB takes dots for structs
        if name in (*reserved, "found", "zero", "") or name.startswith("_") or "." in name:
            raise ValueError(f"{file}: a column cannot be called {name!r} here; rename it")
    try:
        if layout.is_parquet:
            table = parquet.read_table(file)
        else:
            types = {**{field.name: field.type for field in like or ()}, "path": pa.string()}
            table = csv.read_csv(
                file,
                csv.ReadOptions(column_names=names, skip_rows=1),
                csv.ParseOptions(delimiter=layout.delimiter),
                csv.ConvertOptions(column_types=types, strings_can_be_null=True),
            )
        kinds = ((f.name, f.type) for f in table.schema)
        kinds = ((name, pa.string() if pa.types.is_null(kind) else kind) for name, kind in kinds)
        table = table.cast(pa.schema(kinds))
    except pa.ArrowException as error:
        raise ValueError(f"{file}: {error}") from error
    if "time" in names and not pa.types.is_temporal(table["time"].type):
        raise ValueError(
            f"{file}: 'time' must hold timestamps, in CSV as ISO 8601 text such as "
            "2024-05-01T12:30:00; all of them with an offset from UTC, or none"
        )
    if twice := [one for one in table["path"].value_counts().to_pylist() if one["counts"] > 1]:
        raise ValueError(f"{file} has several rows for {twice[0]['values']}")
    return table


def normalize(
    features: np.ndarray, names: Sequence[str], *, may_be_zero: bool = True
) -> np.ndarray:
    """L2-normalise (n, D) features to float32; a ValueError names one that is not finite."""
    # In double precision the square of a float32 neither overflows nor vanishes.
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    usable = np.isfinite(norms) & (may_be_zero | (norms > 0))
    if not usable.all():
        name = names[int(usable.argmin())]
        raise ValueError(f"the embedding of {name} is zero or not finite: it has no direction")
    return (features / np.where(norms > 0, norms, 1)).astype(np.float32)


def metadata_of(schema: pa.Schema) -> dict[str, Any]:
    """Read the metadata of a schema by `stream`; empty for another table."""
    return json.loads((schema.metadata or {}).get(_METADATA, '{"stamp": {}}'))["stamp"]


def check_same_features(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise a ValueError unless embeddings can be compared with an index's, by their metadata.

    The model is the same if its weights are, whatever its name.
    """
    is_same_model = old["weights_sha256"] == new["weights_sha256"]
    names = [*([] if is_same_model else ["model", "checkpoint", "weights_sha256"]), *_DECIDES]
    pairs = {name: (old.get(name), new.get(name)) for name in names}
    if lines := [
        f"{n}: {a!r} in the index, {b!r} in these" for n, (a, b) in pairs.items() if a != b
    ]:
        raise ValueError(
            "\n  ".join(["the embeddings cannot be compared with the index's:", *lines])
        )
