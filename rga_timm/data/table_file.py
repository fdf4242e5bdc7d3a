"""CSV and Parquet files as rows of text, each with its place for errors."""

import csv
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

CSV_EXTENSIONS = (".csv", ".tsv", ".txt")
PARQUET_EXTENSIONS = (".parquet", ".pq")
_DELIMITERS = ",;\t"


class Row(NamedTuple):
    """One row: what the cell of each column says, empty text where it says nothing."""

    place: str  # FILE:LINE, or FILE: row N
    cells: dict[str, str]


class TableFile:
    """A table on disk.

    Args:
        path: Of the file; what it is, its extension says.
        expected: Columns that are likely there: they tell which delimiter a CSV file has.

    Attributes:
        columns: The names of all columns.

    Raises:
        ValueError: It is no such file, has no header, or two columns of the same name.
        ImportError: It is Parquet, and pyarrow is missing.
    """

    def __init__(self, path: Path, expected: Collection[str] = ()) -> None:
        self.path = path
        self.is_parquet = path.suffix.lower() in PARQUET_EXTENSIONS
        if not self.is_parquet and path.suffix.lower() not in CSV_EXTENSIONS:
            known = ", ".join(CSV_EXTENSIONS + PARQUET_EXTENSIONS)
            raise ValueError(f"{path} does not end as tables do: in one of {known}")
        if self.is_parquet:
            self.columns = list(self._parquet().schema_arrow.names)
        else:
            self.delimiter = self._find_delimiter(expected)
            self.columns = self._header(self.delimiter)
        for column in self.columns:
            if self.columns.count(column) > 1:
                raise ValueError(f"{path} has two columns {column!r}")

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """The rows that are not empty, with these of the columns only.

        Raises:
            ValueError: A row of a CSV file has more or fewer cells than the header.
        """
        return self._parquet_rows(columns) if self.is_parquet else self._csv_rows(columns)

    def _header(self, delimiter: str) -> list[str]:
        with self._open() as file:
            try:
                header = next(csv.reader(file, delimiter=delimiter), [])
            except csv.Error as error:
                raise ValueError(f"{self.path}:1 is no header of a table: {error}") from error
        return [name.strip() for name in header]

    def _find_delimiter(self, expected: Collection[str]) -> str:
        """The one that gives most of the expected columns, and then most columns."""
        headers = {delimiter: self._header(delimiter) for delimiter in _DELIMITERS}
        if not any(headers.values()):
            raise ValueError(f"{self.path} is empty, or its first line is: that must be the header")
        return max(headers, key=lambda d: (len({*headers[d]} & {*expected}), len(headers[d])))

    def _csv_rows(self, columns: Sequence[str]) -> Iterator[Row]:
        with self._open() as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            next(reader)
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    raise ValueError(f"{self.path}:{reader.line_num}: {error}") from error
                if cells is None:
                    return
                if not any(cells):
                    continue  # spreadsheets like to leave some at the end
                place = f"{self.path}:{reader.line_num}"
                if len(cells) != len(self.columns):
                    raise ValueError(
                        f"{place} has {len(cells)} cells, but the header has {len(self.columns)}. "
                        "Does a cell with the delimiter in it lack its quotes?"
                    )
                by_column = dict(zip(self.columns, cells, strict=True))
                yield Row(place, {column: by_column[column] for column in columns})

    def _parquet_rows(self, columns: Sequence[str]) -> Iterator[Row]:
        numbers = itertools.count(1)
        for batch in self._parquet().iter_batches(columns=list(columns)):
            values = [[text_of(value) for value in column.to_pylist()] for column in batch.columns]
            for cells in zip(*values, strict=True):
                named = dict(zip(batch.schema.names, cells, strict=True))
                yield Row(f"{self.path}: row {next(numbers)}", named)

    def _open(self) -> TextIO:
        # surrogateescape: the name of a file is not always valid UTF-8. newline: the csv module
        # asks for it.
        return self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _parquet(self) -> Any:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise ImportError(
                f"reading {self.path} needs pyarrow: pip install 'rga-timm[data]'"
            ) from error
        try:
            return pq.ParquetFile(self.path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self.path} is not a Parquet file: {error}") from error


def text_of(value: Any) -> str:
    """A value as CSV would have it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # other tools make floats of whole numbers with gaps between them
    return str(value)
