"""CUHK03 in small, as it is published: MATLAB 7.3 and 5, and torchreid's JSON."""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from scipy.io import savemat

# How many people each pair of cameras saw. The real file has 843, 440, 77, 58 and 49.
SIZES = (5, 3, 2, 1, 2)
# Missing images: (pair, person, number), all from 1. Everybody keeps some of each view.
EMPTY = {
    "detected": {(1, 1, 5), (1, 3, 9), (1, 3, 10), (2, 2, 2), (4, 1, 7)},
    "labeled": {(1, 1, 4), (1, 1, 5), (3, 2, 10)},
}
# As [pair, person] from 1.
TEST_SETS = [[[1, 2], [2, 1], [1, 5]], [[2, 3], [1, 1], [3, 2]]] + [[[1, 4], [1, 3], [2, 2]]] * 18

# The people of the new protocol; the others are trained on.
NEW_TEST = [(1, 2), (1, 4), (2, 3), (5, 1)]
# Through all people of the real file in its order, from 1: 843 of pair 1, then 440 of pair 2, …
LABELS = {1: 0, 2: 843, 3: 843 + 440, 4: 843 + 440 + 77, 5: 843 + 440 + 77 + 58}


class Picture(NamedTuple):
    """What the tests expect of an image."""

    name: str
    pid: int
    view: int
    pixels: np.ndarray  # (H, W, 3) uint8


@functools.cache
def pictures(boxes: str) -> list[Picture]:
    """All images of a kind of boxes, in order."""
    found = []
    for pair, people in enumerate(SIZES, start=1):
        for person in range(1, people + 1):
            for number in range(1, 11):
                if (pair, person, number) not in EMPTY[boxes]:
                    view = 1 if number <= 5 else 2
                    name = f"{pair}_{person:03d}_{view}_{number:02d}.png"
                    seed = [pair, person, number, boxes == "labeled"]
                    rng = np.random.default_rng(seed)
                    # Higher than wide, and never the same size twice in a row.
                    shape = (20 + number, 8 + person, 3)
                    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                    found.append(Picture(name, LABELS[pair] + person, view, pixels))
    return found


def write_mat(path: Path) -> Path:
    """``cuhk-03.mat`` as MATLAB's ``save -v7.3`` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        references = _References(file)
        for boxes in ("detected", "labeled"):
            tables = [_pair_cell(references, boxes, pair) for pair in range(1, 6)]
            references.cell(boxes, np.array(tables, dtype=object)[:, None])
        tables = [references.put(np.array(table, dtype=np.float64)) for table in TEST_SETS]
        references.cell("testsets", np.array(tables, dtype=object)[:, None])
    with path.open("r+b") as raw:  # MATLAB's own header, in front of HDF5's
        text = b"MATLAB 7.3 MAT-file, Platform: PCWIN64, Created on: HDF5 schema 1.00 ."
        raw.write(text.ljust(116) + b"\0" * 8 + b"\x00\x02IM")
    return path


class _References:
    """Writes MATLAB arrays, those that are not variables to ``#refs#``."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.group = file.create_group("#refs#")
        self.group.create_dataset("a", data=np.zeros(2, dtype=np.uint64))
        self.group["a"].attrs["MATLAB_class"] = np.bytes_("canonical empty")
        self.group["a"].attrs["MATLAB_empty"] = np.uint8(1)

    def put(self, array: np.ndarray, compression: str | None = None) -> h5py.Reference:
        """An array of any number of dimensions: in columns first order, as MATLAB stores them."""
        name = f"n{len(self.group)}"
        data = self.group.create_dataset(name, data=array.T, compression=compression)
        data.attrs["MATLAB_class"] = np.bytes_("uint8" if array.dtype == np.uint8 else "double")
        data.attrs["H5PATH"] = np.bytes_("/#refs#")
        return data.ref

    def empty(self) -> h5py.Reference:
        """[]: its size, 0 by 0, stands in the place of its content."""
        data = self.group.create_dataset(f"n{len(self.group)}", data=np.zeros(2, dtype=np.uint64))
        data.attrs["MATLAB_class"] = np.bytes_("double")
        data.attrs["MATLAB_empty"] = np.uint8(1)
        return data.ref

    def cell(self, name: str, references: np.ndarray) -> h5py.Dataset:
        """A cell array, as a variable or below ``#refs#``."""
        data = self.file.create_dataset(name, data=references.T, dtype=h5py.ref_dtype)
        data.attrs["MATLAB_class"] = np.bytes_("cell")
        return data


def _pair_cell(references: _References, boxes: str, pair: int) -> h5py.Reference:
    """The M x 10 cell array of a pair of cameras."""
    by_name = {picture.name: picture for picture in pictures(boxes)}
    cells = np.empty((SIZES[pair - 1], 10), dtype=object)
    for person, number in np.ndindex(cells.shape):
        name = f"{pair}_{person + 1:03d}_{1 if number < 5 else 2}_{number + 1:02d}.png"
        if name in by_name:
            cells[person, number] = references.put(by_name[name].pixels, compression="gzip")
        else:
            cells[person, number] = references.empty()
    return references.cell(f"#refs#/{boxes}{pair}", cells).ref


def new_protocol(boxes: str) -> dict[str, list[int]]:
    """Indices from 1 into `pictures`: of each test person the last image of a view is the query."""
    found: dict[str, list[int]] = {"train": [], "query": [], "gallery": []}
    shots = pictures(boxes)
    test = {LABELS[pair] + person for pair, person in NEW_TEST}
    for index, shot in enumerate(shots, start=1):
        later = [s for s in shots[index:] if (s.pid, s.view) == (shot.pid, shot.view)]
        split = "train" if shot.pid not in test else "gallery" if later else "query"
        found[split].append(index)
    return found


def write_new_protocol(folder: Path) -> None:
    """``cuhk03_new_protocol_config_{detected,labeled}.mat`` as MATLAB's ``save`` writes them."""
    for boxes in ("detected", "labeled"):
        shots = pictures(boxes)
        filelist = np.empty((len(shots), 1), dtype=object)
        filelist[:, 0] = [shot.name for shot in shots]
        column = lambda values, kind: np.array(values, dtype=kind)[:, None]  # noqa: E731
        content = {
            "camId": column([shot.view for shot in shots], np.uint8),
            "filelist": filelist,
            "labels": column([shot.pid for shot in shots], np.uint16),
        }
        for split, indices in new_protocol(boxes).items():
            content[f"{split}_idx"] = column(indices, np.uint16)
        savemat(folder / f"cuhk03_new_protocol_config_{boxes}.mat", content, do_compression=True)


def write_torchreid(root: Path, separator: str = "/") -> Path:
    """What torchreid makes of the archive: images, empty here, and lists with its own paths."""
    for boxes in ("detected", "labeled"):
        (root / f"images_{boxes}").mkdir(parents=True)
        for shot in pictures(boxes):
            (root / f"images_{boxes}" / shot.name).touch()  # a reader does not open them
        splits = [torchreid_split(boxes, people, separator) for people in TEST_SETS]
        (root / f"splits_classic_{boxes}.json").write_text(json.dumps(splits, indent=4))
    return root


def torchreid_split(boxes: str, people: list[list[int]], separator: str) -> dict[str, object]:
    """One entry of ``splits_classic_*.json``: [path, label, camera from 0] of each image."""
    folder = separator.join(["", "home", "somebody", "1_001_1_01.png", f"images_{boxes}"])
    test = {LABELS[pair] + person for pair, person in people}
    groups: dict[bool, list[list[object]]] = {False: [], True: []}
    labels: dict[bool, dict[int, int]] = {False: {}, True: {}}
    for shot in pictures(boxes):
        tested = shot.pid in test
        label = labels[tested].setdefault(shot.pid, len(labels[tested]))
        groups[tested].append([f"{folder}{separator}{shot.name}", label, shot.view - 1])
    return {
        "train": groups[False],
        "query": groups[True],
        "gallery": groups[True],
        "num_train_pids": len(labels[False]),
    }
