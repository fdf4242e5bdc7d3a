"""An index of embeddings that is kept in LanceDB, on disk or in object storage."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from rga_timm.search.filters import where_clause
from rga_timm.search.lance import import_lancedb, streamed
from rga_timm.search.rows import (
    EMBEDDING,
    KEY,
    DirectionlessError,
    Rows,
    check_same_features,
    normalize,
    stamp_of,
)

Kind = Literal["exact", "ivf_rq", "ivf_pq", "ivf_hnsw_sq"]
TABLE = "embeddings"
NPROBES = 100
REFINE_FACTOR = 5
_INDEX = f"{EMBEDDING}_idx"  # LanceDB's own name for it
# Rows of a partition. A query reads `nprobes` of them whole, but a graph only in part.
_PARTITION_ROWS = {"ivf_rq": 4096, "ivf_pq": 4096, "ivf_hnsw_sq": 65536}
_MIN_ROWS = 256  # the codebooks of ivf_pq have as many entries
_DISTANCE = "_distance"


class SearchIndex:
    """Embeddings of one model that are searched by cosine similarity.

    Every row is an image (or tracklet): `root` and `path` of its file, `split`, `pid`, `camid`,
    `tracklet`, the L2-normalised `embedding`, and whatever a table of the user's says. The stamp of
    the embeddings is kept with the table. Exact until `create_index` makes it approximate.

    Args:
        uri: the folder of the LanceDB database, or `s3://`, `gs://`, `az://` and a place there.
        table: its name in the database.
        storage_options: of an object storage, as LanceDB takes them.

    Raises:
        ImportError: LanceDB is not installed.
        ValueError: there is no such table, or it is not one of embeddings.
    """

    def __init__(
        self,
        uri: str | Path,
        *,
        table: str = TABLE,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        import_lancedb()  # whose lack is the first thing to say
        self.uri = str(uri)
        # LanceDB would make the folder, and leave it there.
        if "://" not in self.uri and not Path(uri).is_dir():
            raise ValueError(
                f"there is no index {table!r} in {uri}, no such folder: build it first"
            )
        found = _open(_connect(uri, storage_options), table)
        if found is None:
            raise ValueError(f"there is no index {table!r} in {uri}: build it first")
        self.table: Any = found
        self.stamp = _stamp_of(self.table, uri)

    @classmethod
    def build(
        cls,
        uri: str | Path,
        folder: str | Path,
        *,
        columns: str | Path | None = None,
        splits: Collection[str] = (),
        overwrite: bool = False,
        table: str = TABLE,
        storage_options: Mapping[str, str] | None = None,
        progress: bool = True,
    ) -> SearchIndex:
        """A new index of a folder of stored embeddings.

        The embeddings are read a shard at a time and committed at once: an interrupted build
        leaves no index, and with `overwrite` the old one.

        Args:
            uri: as for the class.
            folder: of stored embeddings.
            columns: a CSV or Parquet file whose column `path` says which image a row is about; its
                other columns are kept, `time` as a timestamp.
            splits: the splits to take; empty for all.
            overwrite: replace an index that is there.
            table: as for the class.
            storage_options: as for the class.
            progress: show a progress bar.

        Raises:
            ImportError: LanceDB is not installed.
            FileNotFoundError: the folder holds no stored embeddings.
            ValueError: there is an index already, the folder is not complete or has none of these
                splits, a feature has no direction, or something is wrong with `columns`.
        """
        database = _connect(uri, storage_options)
        rows = Rows(folder, columns, splits)
        there = _open(database, table)
        if there is not None:
            _stamp_of(there, uri)  # a table of something else is never overwritten
            if not overwrite:
                raise ValueError(
                    f"there is an index {table!r} in {uri} already: append to it, or overwrite it"
                )
        with streamed(rows.schema, rows.batches(progress)) as reader:
            database.create_table(
                table, data=reader, schema=rows.schema, mode="overwrite" if overwrite else "create"
            )
        return cls(uri, table=table, storage_options=storage_options)

    def __len__(self) -> int:
        return int(self.table.count_rows())

    def append(
        self,
        folder: str | Path,
        *,
        columns: str | Path | None = None,
        splits: Collection[str] = (),
        replace: bool = False,
        progress: bool = True,
    ) -> int:
        """Put further embeddings of the same model into the index, all or none.

        They are found at once: a query also looks, one by one, at rows that the approximate index
        does not know yet. `optimize` puts them into it.

        Args:
            folder: of stored embeddings.
            columns: as for `build`; the same columns as there.
            splits: the splits to take; empty for all.
            replace: put the new rows in the place of those with the same root, split and path.
                Without, such rows are an error.
            progress: show a progress bar.

        Returns:
            How many rows the index grew by.

        Raises:
            FileNotFoundError: the folder holds no stored embeddings.
            ValueError: another model, preprocessing, feature, ... made the embeddings; the columns
                are other ones; rows are there already; or as for `build`.
        """
        rows = Rows(folder, columns, splits, like=self.table.schema)
        check_same_features(self.stamp, rows.stamp)
        self._check_same_columns(rows)
        before, counts = len(self), rows.keys()
        if replace:
            twice = next((key for key, count in counts.items() if count > 1), None)
            if twice:
                raise ValueError(
                    f"{folder} has {twice[-1]} several times: which one is to replace it?"
                )
        else:
            self._check_new(counts)
        with streamed(rows.schema, rows.batches(progress)) as reader:
            if replace:
                merge = self.table.merge_insert(list(KEY))
                merge.when_matched_update_all().when_not_matched_insert_all().execute(reader)
            else:
                self.table.add(reader)
        return len(self) - before

    def create_index(
        self,
        kind: Kind = "ivf_rq",
        *,
        num_partitions: int | None = None,
        num_sub_vectors: int | None = None,
    ) -> None:
        """Make the search approximate, or exact again.

        Args:
            kind: `ivf_rq` (a bit a dimension, RaBitQ), `ivf_pq` (product quantisation),
                `ivf_hnsw_sq` (graphs over 8-bit numbers); or `exact`, which drops the index.
            num_partitions: into which the space is cut; more make a query faster and find less.
                By default one for 4,096 rows, of `ivf_hnsw_sq` one for 65,536.
            num_sub_vectors: bytes of a vector in `ivf_pq`; they divide the width. By default an
                eighth of the width, or the greatest divisor below that.

        Raises:
            ValueError: an unknown kind, numbers that do not fit, or too few rows to learn from.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        if num_sub_vectors is not None and kind != "ivf_pq":
            raise ValueError("sub-vectors are a matter of ivf_pq only")
        if kind == "exact":
            if self._index_kind() is not None:
                self.table.drop_index(_INDEX)
            return
        if len(self) < _MIN_ROWS:
            raise ValueError(
                f"{len(self)} rows are too few to learn an approximate index from; the exact "
                f"search of so few takes no time (from {_MIN_ROWS} rows on one can be made)"
            )
        partitions = num_partitions or max(1, round(len(self) / _PARTITION_ROWS[kind]))
        if not 0 < partitions <= len(self):
            raise ValueError(f"{partitions} partitions do not fit {len(self)} rows")
        self.table.create_index(
            EMBEDDING, config=self._config(kind, partitions, num_sub_vectors), replace=True
        )

    def optimize(self) -> None:
        """Put appended rows into the approximate index, and merge small files.

        The partitions stay as they were learnt: when the index has grown to several times its
        size, `create_index` makes better ones. LanceDB keeps what was replaced for a week, and
        deletes it here after that.
        """
        self.table.optimize()

    def where(self, **conditions: Any) -> str | None:
        """The SQL of conditions on cameras and times, as `where_clause` takes them."""
        return where_clause(self.table.schema, **conditions)

    def query(
        self,
        features: np.ndarray,
        k: int = 10,
        *,
        where: str | None = None,
        exact: bool = False,
        nprobes: int = NPROBES,
        refine_factor: int = REFINE_FACTOR,
        progress: bool = False,
    ) -> list[list[dict[str, Any]]]:
        """The most similar rows of each query.

        Args:
            features: (n, D), of the same model.
            k: how many; fewer come only where fewer rows fulfil the condition.
            where: SQL that the rows have to fulfil, by `where` or in LanceDB's own terms. It holds
                before the search, not for its k results.
            exact: compare with every row, whatever index there is.
            nprobes: partitions of the approximate index that are looked into; further ones only
                where these hold fewer than k rows.
            refine_factor: times k candidates of the approximate index are compared by their full
                embeddings.
            progress: show a progress bar.

        Returns:
            For each query its rows, the most similar first: `rank` from 1, `similarity` (cosine),
            and every column but the embedding.

        Raises:
            ValueError: features of another width, or without direction; a number below 1; or a
                condition that LanceDB does not understand.
        """
        for name, value in (("k", k), ("nprobes", nprobes), ("refine_factor", refine_factor)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self.stamp["width"]:
            raise ValueError(
                f"features must be (n, {self.stamp['width']}) as those in the index, got shape "
                f"{features.shape}"
            )
        try:
            queries = normalize(features)
        except DirectionlessError as error:
            raise ValueError(f"the feature of query {error.row} {error}") from error
        found = []
        for vector in tqdm(queries, desc="search", disable=not progress):
            search = self._search(vector, k, where)
            if exact:
                found.append(_ranked(search.bypass_vector_index()))
                continue
            search = search.refine_factor(refine_factor)
            rows = _ranked(search.nprobes(nprobes))
            if len(rows) < k:  # a narrow filter; 0 is no limit
                # Not asked for at once: LanceDB then looks into all partitions in any case.
                rows = _ranked(search.maximum_nprobes(0))
            found.append(rows)
        return found

    def info(self) -> dict[str, Any]:
        """What is in the index: rows, columns, kind, rows that the kind's index knows, stamp."""
        kind = self._index_kind()
        stats = self.table.index_stats(_INDEX) if kind else None
        return {
            "uri": self.uri,
            "rows": len(self),
            "columns": {field.name: str(field.type) for field in self.table.schema},
            "kind": kind or "exact",
            "indexed_rows": stats.num_indexed_rows if stats else None,
            "stamp": self.stamp,
        }

    def _search(self, vector: np.ndarray, k: int, where: str | None) -> Any:
        columns = [name for name in self.table.schema.names if name != EMBEDDING]
        search = self.table.search(vector, vector_column_name=EMBEDDING)
        search = search.distance_type("cosine").limit(k).select([*columns, _DISTANCE])
        return search.where(where, prefilter=True) if where else search

    def _index_kind(self) -> str | None:
        """Of the approximate index; None where there is none."""
        for index in self.table.list_indices():
            if index.name == _INDEX:
                # IvfHnswSq, by LanceDB's versions also IVF_HNSW_SQ
                return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", index.index_type).lower()
        return None

    def _config(self, kind: str, partitions: int, num_sub_vectors: int | None) -> Any:
        import_lancedb()
        from lancedb.index import HnswSq, IvfPq, IvfRq

        width, options = self.stamp["width"], {"distance_type": "cosine"}
        if kind == "ivf_hnsw_sq":
            return HnswSq(num_partitions=partitions, **options)
        if kind == "ivf_rq":
            if width % 8:
                raise ValueError(
                    f"ivf_rq packs 8 dimensions into a byte, and {width} are no multiple of 8: "
                    "take ivf_pq"
                )
            return IvfRq(num_partitions=partitions, **options)
        divisors = [n for n in range(1, width + 1) if width % n == 0]
        if num_sub_vectors is None:
            num_sub_vectors = max(n for n in divisors if n <= max(1, width // 8))
        elif num_sub_vectors not in divisors:
            raise ValueError(f"{num_sub_vectors} sub-vectors do not divide the width, {width}")
        return IvfPq(num_partitions=partitions, num_sub_vectors=num_sub_vectors, **options)

    def _check_same_columns(self, rows: Rows) -> None:
        there = {field.name: field.type for field in self.table.schema}
        new = {field.name: field.type for field in rows.schema}
        if there != new:
            only = [
                f"{whose} {name} ({kind})"
                for whose, one, other in (("the index has", there, new), ("new:", new, there))
                for name, kind in one.items()
                if other.get(name) != kind
            ]
            raise ValueError(
                f"the columns differ ({'; '.join(only)}): append the same ones, of the same types"
            )

    def _check_new(self, keys: Collection[tuple[str, str, str]]) -> None:
        """Raise a ValueError if one of the rows is there already."""
        twice = []
        batches = self.table.search().select(list(KEY)).to_batches(batch_size=65536)
        for batch in batches:
            columns = (batch.column(name).to_pylist() for name in KEY)
            twice += [key for key in zip(*columns, strict=True) if key in keys]
        if twice:
            raise ValueError(
                f"{len(twice)} of the images are in the index already, such as {twice[0][-1]}: "
                "replace them, or leave them out"
            )


def _ranked(search: Any) -> list[dict[str, Any]]:
    """What a search finds: rank and similarity instead of LanceDB's distance, then the columns."""
    try:
        rows = search.to_arrow().to_pylist()
    except RuntimeError as error:
        # A wrong condition; newer versions of LanceDB raise a ValueError themselves.
        if "Invalid user input" in str(error):
            raise ValueError(str(error)) from error
        raise
    return [
        {"rank": rank, "similarity": 1 - row.pop(_DISTANCE), **row}
        for rank, row in enumerate(rows, start=1)
    ]


def _connect(uri: str | Path, storage_options: Mapping[str, str] | None) -> Any:
    options = dict(storage_options) if storage_options else None
    return import_lancedb().connect(str(uri), storage_options=options)


def _open(database: Any, table: str) -> Any | None:
    """The table; None if there is none."""
    try:
        return database.open_table(table)
    except (ValueError, FileNotFoundError):
        return None


def _stamp_of(table: Any, uri: str | Path) -> dict[str, Any]:
    stamp = stamp_of(table.schema)
    if stamp is None:
        raise ValueError(f"the table {table.name!r} in {uri} is no index of embeddings")
    return stamp
