"""CSV and Parquet files as rows of text, each with its place for errors."""

import csv
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

CSV_EXTENSIONS = (".csv", ".tsv", ".txt")
PARQUET_EXTENSIONS = (".parquet", ".pq")
_DELIMITERS = ",;\t"


class Row(NamedTuple):
    """One row: the text of the cell of each column, empty where there is nothing in it."""

    place: str  # FILE:LINE, or FILE: row N
    cells: dict[str, str]


class TableFile:
    """A CSV or Parquet file; its attribute ``columns`` has the names of all columns.

    Args:
        path: Of the file; its extension says what it is.
        expected: Columns that are likely there: they tell which delimiter a CSV file has.

    Raises:
        ValueError: It is not such a file, has no header, or two columns of the same name.
        ImportError: It is Parquet, and pyarrow is missing.
    """

    def __init__(self, path: Path, expected: Collection[str] = ()) -> None:
        self.path = path
        self.is_parquet = path.suffix.lower() in PARQUET_EXTENSIONS
        if not self.is_parquet and path.suffix.lower() not in CSV_EXTENSIONS:
            known = ", ".join(CSV_EXTENSIONS + PARQUET_EXTENSIONS)
            raise ValueError(f"{path} does not end in one of {known}, as tables do")
        if self.is_parquet:
            self.columns = list(self._parquet().schema_arrow.names)
        else:
            headers = {d: [n.strip() for n in next(self._csv(d), ("", []))[1]] for d in _DELIMITERS}
            if not any(headers.values()):
                raise ValueError(f"{path} is empty, or its first line is: that must be the header")
            # The one that gives most of the expected columns, and then most columns.
            self.delimiter = max(
                headers, key=lambda d: (len({*headers[d]} & {*expected}), len(headers[d]))
            )
            self.columns = headers[self.delimiter]
        for column in self.columns:
            if self.columns.count(column) > 1:
                raise ValueError(f"{path} has two columns {column!r}")

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the rows that are not empty, with these of the columns only.

        Raises:
            ValueError: A row of a CSV file has more or fewer cells than the header.
        """
        if self.is_parquet:
            number = 0
            for batch in self._parquet().iter_batches(columns=list(columns)):
                for row in batch.to_pylist():
                    number += 1
                    cells = {column: text_of(value) for column, value in row.items()}
                    yield Row(f"{self.path}: row {number}", cells)
            return
        lines = self._csv(self.delimiter)
        next(lines)
        for place, texts in lines:
            if not any(texts):
                continue  # spreadsheets like to leave some at the end
            if len(texts) != len(self.columns):
                raise ValueError(
                    f"{place} has {len(texts)} cells, but the header has {len(self.columns)}. "
                    "Does a cell with the delimiter in it lack its quotes?"
                )
            by_column = dict(zip(self.columns, texts, strict=True))
            yield Row(place, {column: by_column[column] for column in columns})

    def _csv(self, delimiter: str) -> Iterator[tuple[str, list[str]]]:
        """The place and the cells of each line of a CSV file."""
        # surrogateescape: the name of a file is not always valid UTF-8. newline: the csv module
        # asks for it.
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            try:
                for cells in reader:
                    yield f"{self.path}:{reader.line_num}", cells
            except csv.Error as error:
                raise ValueError(f"{self.path}:{reader.line_num}: {error}") from error

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
