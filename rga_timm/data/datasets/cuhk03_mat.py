"""CUHK03's own file, ``cuhk-03.mat``: a MATLAB file of version 7.3, which is HDF5.

``detected`` and ``labeled`` are each a cell array of 5 pairs of cameras, each a cell array of
M people × 10 images; ``testsets`` is one of 20 test sets. A cell array is an array of references.
MATLAB's H×W×3 is (3, W, H) here, because it stores columns first. All functions raise a ValueError
for another or broken file, and an ImportError without h5py.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .cuhk03_protocol import PAIR_SIZES, VIEW_IMAGES, Cell, Person, parse_name


def list_cells(path: Path, boxes: str) -> list[Cell]:
    """The cells that hold an image, in order; many people have fewer than ten."""
    cells: list[Cell] = []
    with _open(path) as file:
        for pair, reference in enumerate(file[boxes][()].ravel(), start=1):
            cells += _cells_of_pair(file, file[reference][()], pair, f"{path}: {boxes}")
    return cells


def list_test_sets(path: Path) -> list[set[Person]]:
    """The people of each of the classic protocol's test sets."""
    with _open(path) as file:
        # (2, 100) doubles: pairs, then people.
        tables = [file[reference][()] for reference in file["testsets"][()].ravel()]
    for number, table in enumerate(tables, start=1):
        if table.ndim != 2 or len(table) != 2:
            found = f"test set {number} has the shape {table.shape}"
            raise ValueError(f"{path}: {found}; expected (2, people)")
    return [{(int(pair), int(person)) for pair, person in table.T} for table in tables]


def read_pixels(path: str | Path, boxes: str, cell: Cell) -> np.ndarray:
    """One RGB image, (H, W, 3) uint8; an OSError or a ValueError if it cannot be read."""
    handle, key = _handle(str(path)), (boxes, cell.pair)
    try:
        if key not in handle.references:
            table = handle.file[boxes][()].ravel()[cell.pair - 1]
            handle.references[key] = handle.file[table][()]
        data = handle.file[handle.references[key][cell.number - 1, cell.person - 1]]
        if not _is_image(data):
            raise ValueError(f"the cell of {cell.name} is empty")
        pixels = data[()]
    except (KeyError, IndexError, RuntimeError, OSError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError | IndexError) else OSError
        raise kind(f"{boxes} {cell.name} cannot be read from {path}: {error}") from error
    return np.ascontiguousarray(pixels.T)


@dataclass(frozen=True)
class MatOpener:
    """Opens the images in ``cuhk-03.mat`` by the names that they have when extracted.

    An image becomes an uncompressed PPM file in memory. Loader processes get only the path, and
    each opens the file on its first image.
    """

    path: str

    def __call__(self, name: str) -> BinaryIO:
        """Open ``images_{boxes}/1_001_1_01.png``."""
        folder, _, file_name = name.rpartition("/")
        pixels = read_pixels(self.path, folder.removeprefix("images_"), parse_name(file_name, name))
        height, width, _ = pixels.shape
        return io.BytesIO(b"P6 %d %d 255\n" % (width, height) + pixels.tobytes())


class _Handle(NamedTuple):
    """The open file, and the references in it that were needed so far."""

    process: int
    file: Any
    references: dict[tuple[str, int], np.ndarray]  # (10, people) of each pair of cameras


_handles: dict[str, _Handle] = {}  # by path: readers share the file


def _handle(path: str) -> _Handle:
    handle = _handles.get(path)
    if handle and handle.process != os.getpid():
        # After a fork the descriptor, with its position in the file, is shared with the parent.
        # HDF5 would use it as long as the file is open in this process.
        with contextlib.suppress(Exception):
            handle.file.close()
        handle = None
    if handle is None:
        handle = _handles[path] = _Handle(os.getpid(), _open(Path(path)), {})
    return handle


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"{path} is an HDF5 file, and reading it needs h5py: pip install 'rga-timm[data]'"
        ) from error
    if not h5py.is_hdf5(path):
        with path.open("rb") as start:
            is_page = start.read(512).lstrip().startswith(b"<")
        reason = "a web page" if is_page else "another file, or the download went wrong"
        raise ValueError(f"{path} is not an HDF5 file, as cuhk-03.mat is: it is {reason}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is cut off or broken: download it again ({error})") from error
    if missing := [name for name in ("detected", "labeled", "testsets") if name not in file]:
        names = ", ".join(sorted(set(file) - {"#refs#"})) or "nothing"
        file.close()
        raise ValueError(f"{path} is not CUHK03: it has no {', '.join(missing)}, but {names}")
    return file


def _cells_of_pair(file: Any, table: np.ndarray, pair: int, place: str) -> Iterator[Cell]:
    people = PAIR_SIZES[pair - 1] if pair <= len(PAIR_SIZES) else 0
    if table.ndim != 2 or len(table) != 2 * VIEW_IMAGES or table.shape[1] > people:
        expected = f"{2 * VIEW_IMAGES} images of each of {people} people"
        raise ValueError(f"{place}, pair {pair}, has the shape {table.shape}; expected {expected}")
    for person, references in enumerate(table.T, start=1):
        for number, reference in enumerate(references, start=1):
            cell = Cell(pair, person, number)
            try:
                if reference and _is_image(file[reference]):
                    yield cell
            except ValueError as error:
                raise ValueError(f"{place}, {cell.name}: {error}") from error


def _is_image(data: Any) -> bool:
    """Whether a cell holds an image, or its size 0×0; a ValueError for anything else."""
    if data.size == 0 or data.ndim == 1:
        return False
    if data.ndim != 3 or data.shape[0] != 3 or data.dtype != np.uint8:
        raise ValueError(f"{data.dtype} of the shape {data.shape} is not an image, (3, W, H) uint8")
    return True
