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
    """One row: the text of each column's cell, empty for an empty cell."""

    place: str  # FILE:LINE, or FILE: row N
    cells: dict[str, str]


class TableFile:
    """A CSV or Parquet file, told apart by its extension.

    Its attribute ``columns`` has the names of all columns. The ``expected`` columns are likely
    there: they tell which delimiter a CSV file has. An invalid file is a ValueError.
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
            # The delimiter that gives most of the expected columns, and then most columns.
            self.delimiter, self.columns = max(
                headers.items(), key=lambda item: (len({*item[1]} & {*expected}), len(item[1]))
            )
        for column in self.columns:
            if self.columns.count(column) > 1:
                raise ValueError(f"{path} has two columns {column!r}")

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the rows that are not empty, with these columns; a wrong cell count is an error."""
        if self.is_parquet:
            batches = self._parquet().iter_batches(columns=list(columns))
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                cells = {column: text_of(value) for column, value in row.items()}
                yield Row(f"{self.path}: row {number}", cells)
            return
        lines = self._csv(self.delimiter)
        next(lines)
        for place, texts in lines:
            if not any(texts):
                continue  # spreadsheets leave such rows at the end
            if len(texts) != len(self.columns):
                text = f"{place} has {len(texts)} cells, but the header has {len(self.columns)}"
                raise ValueError(f"{text}. Does a cell with the delimiter in it lack quotes?")
            by_column = dict(zip(self.columns, texts, strict=True))
            yield Row(place, {column: by_column[column] for column in columns})

    def _csv(self, delimiter: str) -> Iterator[tuple[str, list[str]]]:
        """Yield the place and the cells of each line of a CSV file."""
        # surrogateescape: the name of a file is not always valid UTF-8.
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
            text = f"reading {self.path} needs pyarrow: pip install 'rga-timm[data]'"
            raise ImportError(text) from error
        try:
            return pq.ParquetFile(self.path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self.path} is not a Parquet file: {error}") from error


def text_of(value: Any) -> str:
    """Write a value as CSV has it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    # Other tools make floats of a column of whole numbers with gaps.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)
