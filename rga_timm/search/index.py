"""An index of embeddings in LanceDB, on disk or in object storage."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from filelock import FileLock

from rga_timm.data.text_file import writing
from rga_timm.search import rows
from rga_timm.search.rows import EMBEDDING, KEY

Kind = Literal["exact", "ivf_rq"]
NPROBES, REFINE_FACTOR = 100, 5
_TABLE = "embeddings"
_INDEX = f"{EMBEDDING}_idx"  # LanceDB's own name for it
_PARTITION_ROWS, _MIN_ROWS = 4096, 256


class SearchIndex:
    """Embeddings of one model that are searched by cosine similarity.

    Every row is an image (or tracklet): `root` and `path` of its file, `split`, `pid`, `camid`,
    `tracklet`, the L2-normalised `embedding`, and the user's own columns.

    Args:
        uri: Folder of the LanceDB database, or a place in `s3://`, `gs://` or `az://`; LanceDB
            reads credentials from the environment.

    Attributes:
        table: The LanceDB table.
        metadata: How the embeddings were made.

    Raises:
        ImportError, ValueError: LanceDB is not installed, or there is no index.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        _, self.table = _open(uri)
        if self.table is None:
            raise ValueError(f"there is no index in {uri}: build it first")
        self.metadata = rows.metadata_of(self.table.schema)
        if not self.metadata:
            raise ValueError(f"the table {_TABLE!r} in {uri} is not an index of embeddings")

    @classmethod
    def build(
        cls, uri: str | Path, folder: str | Path, *, columns: str | Path | None = None,
        splits: Collection[str] = (), overwrite: bool = False,
    ) -> "SearchIndex":  # fmt: skip
        """Make an index of stored embeddings, all or none.

        Args:
            uri: As for the class.
            folder: Stored embeddings.
            columns: CSV or Parquet file with the images' `path` and further columns of theirs. A
                column `time` holds timestamps.
            splits: Splits to take; empty for all.
            overwrite: Replace an existing index.

        Raises:
            FileNotFoundError, ValueError: The embeddings or columns are missing or invalid, or
                there is an index already.
        """
        database, _ = _open(uri, is_new=True)
        with _one_writer(uri):
            if _open(uri)[1] is not None:
                cls(uri)  # another program's table is never overwritten
                if not overwrite:
                    raise ValueError(f"there is an index in {uri} already: append, or overwrite it")
            with rows.stream(folder, columns, splits) as reader, writing(Path(uri)):
                mode = "overwrite" if overwrite else "create"
                database.create_table(_TABLE, data=reader, schema=reader.schema, mode=mode)
        return cls(uri)

    def __len__(self) -> int:
        return int(self.table.count_rows())

    def append(
        self, folder: str | Path, *, columns: str | Path | None = None,
        splits: Collection[str] = (), replace: bool = False,
    ) -> int:  # fmt: skip
        """Add further embeddings of the same model, all or none; return how many rows are new.

        Images of the same root, split and path are the same. Those in the index are kept, or with
        `replace` replaced. The new embeddings are held in memory. Queries find them at once. A
        second program that appends to a folder waits; in object storage, which knows no locks,
        append by one program at a time.

        Raises:
            FileNotFoundError, ValueError: As for `build`; or the embeddings were made in another
                way, columns are not in the index, or one image is to be replaced twice.
        """
        with _one_writer(self.uri):
            self.table.checkout_latest()  # others may have written since it was opened
            before = len(self)
            merge = self.table.merge_insert(KEY).when_not_matched_insert_all()
            with rows.stream(folder, columns, splits, self.table.schema) as reader:
                rows.check_same_features(self.metadata, rows.metadata_of(reader.schema))
                with writing(Path(self.uri)):
                    (merge.when_matched_update_all() if replace else merge).execute(reader)
            return len(self) - before

    def create_index(self, kind: Kind = "ivf_rq", *, num_partitions: int | None = None) -> None:
        """Make the search approximate, or exact again.

        Args:
            kind: `ivf_rq` (RaBitQ, a bit for each dimension; for widths that 8 divides), or
                `exact`. LanceDB has others: use its `table.create_index`.
            num_partitions: Parts of the space, of which a query reads a few. More make a query
                faster and find less. By default one for 4,096 rows.

        Raises:
            ValueError: The kind is unknown, or does not fit the rows.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        if kind == "exact":
            if self._kind() != "exact":
                self.table.drop_index(_INDEX)
            return
        count = len(self)
        partitions = num_partitions or max(1, round(count / _PARTITION_ROWS))
        if count < max(_MIN_ROWS, partitions):
            raise ValueError(
                f"{count} images are too few for an approximate index, which needs {_MIN_ROWS}, "
                "and one for each partition; exact search of so few is fast"
            )
        from lancedb.index import IvfRq

        config = IvfRq(distance_type="cosine", num_partitions=partitions)
        self.table.create_index(EMBEDDING, config=config, replace=True)

    def query(
        self, features: np.ndarray, k: int = 10, *, where: str | None = None, exact: bool = False,
        nprobes: int = NPROBES, refine_factor: int = REFINE_FACTOR,
    ) -> list[list[dict[str, Any]]]:  # fmt: skip
        """Find the most similar rows of each query.

        Args:
            features: (n, D), of the same model.
            k: How many; fewer only if fewer rows fulfil the condition.
            where: SQL condition on rows, in LanceDB's terms, applied before the search.
            exact: Compare with every row, whatever index there is.
            nprobes: Partitions of the approximate index to search; more if they hold too few.
            refine_factor: Compare this many times k candidates by their full embeddings.

        Returns:
            For each query its rows, the most similar first: `rank` from 1, `similarity` (cosine),
            and every column but the embedding.

        Raises:
            ValueError: Features have another width or are zero, a number is below 1, or LanceDB
                does not understand the condition.
        """
        if min(k, nprobes, refine_factor) < 1:
            raise ValueError("k, nprobes and refine_factor must be at least 1")
        features, width = np.asarray(features), self.metadata["width"]
        if features.ndim != 2 or features.shape[1] != width:
            raise ValueError(f"features must be (n, {width}) as in the index, got {features.shape}")
        columns = [name for name in self.table.schema.names if name != EMBEDDING]
        found = []
        names = [f"query {i}" for i in range(len(features))]
        for vector in rows.normalize(features, names, may_be_zero=False):
            search = self.table.search(vector, vector_column_name=EMBEDDING)
            search = search.distance_type("cosine").limit(k).select([*columns, "_distance"])
            search = search.where(where, prefilter=True) if where else search
            if exact:
                search = search.bypass_vector_index()
            else:
                search = search.refine_factor(refine_factor).nprobes(nprobes)
            hits = search.to_arrow()
            if not exact and len(hits) < k:  # at once, LanceDB would search all partitions anyway
                hits = search.maximum_nprobes(0).to_arrow()
            hits = enumerate(hits.to_pylist(), start=1)
            found.append([{"rank": i, "similarity": 1 - r.pop("_distance"), **r} for i, r in hits])
        return found

    def info(self) -> dict[str, Any]:
        """Describe the index: rows, columns, kind, approximately indexed rows, metadata."""
        kind = self._kind()
        known = None if kind == "exact" else self.table.index_stats(_INDEX).num_indexed_rows
        columns = {field.name: str(field.type) for field in self.table.schema}
        about = {"kind": kind, "indexed_rows": known, "stamp": self.metadata}
        return {"uri": self.uri, "rows": len(self), "columns": columns, **about}

    def _kind(self) -> str:
        kinds = [index.index_type for index in self.table.list_indices() if index.name == _INDEX]
        # IvfHnswSq, by LanceDB's versions also IVF_HNSW_SQ
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kinds[0]).lower() if kinds else "exact"


@contextmanager
def _one_writer(uri: str | Path) -> Iterator[None]:
    """Keep other programs from writing to a local index: LanceDB would insert the rows of both."""
    if "://" in str(uri):
        yield
        return
    Path(uri).mkdir(parents=True, exist_ok=True)
    with FileLock(Path(uri, ".rga_timm.lock")):
        yield


def _open(uri: str | Path, *, is_new: bool = False) -> tuple[Any, Any]:
    """Open the database and the table in it; None if missing (the database: unless `is_new`)."""
    try:
        import lancedb
        import pyarrow  # noqa: F401 - what LanceDB takes and gives
    except ImportError as error:
        raise ImportError("searching needs LanceDB: pip install 'rga-timm[search]'") from error
    if "://" not in str(uri) and not is_new and not Path(uri).is_dir():
        return None, None  # LanceDB would make the folder
    database = lancedb.connect(str(uri))
    try:
        return database, database.open_table(_TABLE)
    except (ValueError, FileNotFoundError):
        return database, None
