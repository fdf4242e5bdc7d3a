"""Columns of the user's own for the images of an index: times, places, whatever a table says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rga_timm.data.table_file import TableFile

if TYPE_CHECKING:
    import pyarrow as pa

PATH, TIME = "path", "time"
_logger = logging.getLogger(__name__)


class Columns:
    """A CSV or Parquet file with a column `path`, and further ones that are kept in the index.

    The types are those of the file; of a CSV file what pyarrow takes its cells for. `time` is a
    timestamp: ISO 8601 text, or the file's own timestamps or dates.

    Args:
        file: the table. Paths are written as the embeddings have them.
        reserved: names that no column may have.
        like: a schema; columns of the same names get its types where they can. So a column that
            happens to be empty, or to hold whole numbers only, fits what there was before.

    Attributes:
        fields: names and types of the columns, without the path.

    Raises:
        ValueError: it is no such file, has no path or nothing else, a path stands in it twice, a
            name is taken, or a time is none.
        ImportError: pyarrow is missing.
    """

    def __init__(
        self, file: str | Path, reserved: Sequence[str] = (), like: pa.Schema | None = None
    ) -> None:
        self.file = Path(file)
        self._types = {field.name: field.type for field in like or ()}
        table = self._read(TableFile(self.file, expected=(PATH, TIME)))
        if PATH not in table.column_names:
            raise ValueError(
                f"{file} has no column {PATH!r}, only {', '.join(table.column_names)}: "
                "it is what tells which image a row is about"
            )
        paths = table[PATH].to_pylist()
        self._row_of = {path: row for row, path in enumerate(paths)}
        if len(self._row_of) < len(paths):
            twice = next(path for row, path in enumerate(paths) if self._row_of[path] != row)
            raise ValueError(f"{file} has several rows for {twice}")
        self._table = self._with_types(table.drop_columns([PATH]))
        if not self._table.num_columns:
            raise ValueError(f"{file} has no column beside {PATH!r}")
        for name in self._table.column_names:
            # LanceDB takes a dot for the field of a struct, and puts _distance beside the columns.
            if name in reserved or not name or name.startswith("_") or "." in name:
                raise ValueError(f"{file}: a column cannot be called {name!r} here; rename it")
        self.fields: list[pa.Field] = list(self._table.schema)
        self._found, self._missing = 0, 0

    def take(self, paths: Sequence[str]) -> list[pa.Array]:
        """The columns' cells for these images; null for one that the table does not have."""
        import pyarrow as pa

        rows = [self._row_of.get(path) for path in paths]
        missing = rows.count(None)
        self._found += len(rows) - missing
        self._missing += missing
        cells = self._table.take(pa.array(rows, pa.int64()))
        return [column.combine_chunks() for column in cells.columns]

    def check_found(self) -> None:
        """See how many of the images asked for so far were in the table; warn of the others.

        Raises:
            ValueError: none was.
        """
        if not self._found:
            raise ValueError(
                f"{self.file} is about other images: none of its paths, such as "
                f"{next(iter(self._row_of), '')!r}, is one of the embeddings"
            )
        if self._missing:
            _logger.warning("%s has no row for %d of the images", self.file, self._missing)

    def _read(self, file: TableFile) -> pa.Table:
        import pyarrow as pa
        from pyarrow import csv, parquet

        if file.is_parquet:
            return parquet.read_table(self.file)
        try:
            return csv.read_csv(
                self.file,
                read_options=csv.ReadOptions(column_names=file.columns, skip_rows=1),
                parse_options=csv.ParseOptions(delimiter=file.delimiter),
                convert_options=csv.ConvertOptions(
                    column_types={**self._types, PATH: pa.string(), TIME: pa.string()},
                    strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self.file}: {error}") from error

    def _with_types(self, table: pa.Table) -> pa.Table:
        """The table with types that two files about the same things agree on."""
        import pyarrow as pa

        for number, field in enumerate(table.schema):
            column = table[field.name]
            if field.name == TIME:
                column = self._times(column)
            elif pa.types.is_null(field.type):  # nothing says what would stand there
                column = column.cast(pa.string())
            elif pa.types.is_dictionary(field.type):
                column = column.cast(field.type.value_type)
            wanted = self._types.get(field.name, column.type)
            # Times are never taken for those of another zone.
            if column.null_count == len(column) or field.name != TIME:
                try:
                    column = column.cast(wanted)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    raise ValueError(
                        f"{self.file}: {field.name!r} is {column.type}, not {wanted} as before: "
                        f"{error}"
                    ) from error
            table = table.set_column(number, field.name, column)
        return table.replace_schema_metadata(None)

    def _times(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        import pyarrow as pa

        kind = column.type
        if pa.types.is_timestamp(kind):
            return column.cast(pa.timestamp("us", "UTC" if kind.tz else None), safe=False)
        if pa.types.is_date(kind):
            return column.cast(pa.timestamp("us"))
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ValueError(
                f"{self.file}: {TIME!r} is {kind}; it must be a timestamp, or ISO 8601 text such "
                "as 2024-05-01T12:30:00"
            )
        times = []
        for row, text in enumerate(column.to_pylist(), start=1):
            try:
                times.append(parse_time(text) if text else None)
            except ValueError as error:
                raise ValueError(f"{self.file}: row {row}: {error}") from error
        zoned = {time.tzinfo is not None for time in times if time is not None}
        if len(zoned) > 1:
            raise ValueError(f"{self.file}: some times say their offset from UTC and others do not")
        return pa.chunked_array(
            [pa.array(times, pa.timestamp("us", "UTC" if True in zoned else None))]
        )


def parse_time(text: str) -> datetime:
    """A time as ISO 8601 writes it, with or without offset from UTC.

    Raises:
        ValueError: it is none.
    """
    try:
        # Python 3.10 does not know the Z.
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no time: write it as 2024-05-01, 2024-05-01T12:30:00 or "
            "2024-05-01T12:30:00+02:00"
        ) from error
