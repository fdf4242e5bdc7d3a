"""CUHK03's file names, its two protocols, and the lists that say who is tested on.

The classic protocol (Li et al., CVPR 2014) has 20 test sets of 100 people, stored in the archive's
own file. The new one (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal
Encoding", CVPR 2017) has files of its own, one for each kind of boxes. Functions that read a file
raise a ValueError if its content is invalid.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from ..matlab import load_mat
from ..text_file import write_text

VIEW_IMAGES = 5  # of a person at most, from each of the two cameras of a pair
PAIR_SIZES = (843, 440, 77, 58, 49)  # how many people each pair of cameras saw; 1,467 in all

# The file that rga-timm extract-cuhk03 writes beside the images.
TEST_SETS = "cuhk03_test_sets.json"

# 1_001_1_01.png: pair of cameras, person, view, number of the image; all from 1.
_NAME = re.compile(r"(\d)_(\d{3})_([12])_(\d{2})\.\w+")
_EXAMPLE = "1_001_1_01.png (PAIR_PERSON_VIEW_NUMBER.png)"

Person = tuple[int, int]  # pair of cameras, number in it; both from 1


class Cell(NamedTuple):
    """The place of an image in the archive's file. All numbers from 1."""

    pair: int  # of cameras, 1 to 5
    person: int  # within the pair
    number: int  # of the image: 1 to 5 are from the pair's first camera, 6 to 10 from its second

    @property
    def view(self) -> int:
        """Which of the pair's two cameras, 1 or 2. The protocols take this as the camera."""
        return 1 if self.number <= VIEW_IMAGES else 2

    @property
    def pid(self) -> int:
        """The person, numbered through the pairs, 1 to 1,467, as in the new protocol."""
        return sum(PAIR_SIZES[: self.pair - 1]) + self.person

    @property
    def name(self) -> str:
        """The name of the extracted file."""
        return f"{self.pair}_{self.person:03d}_{self.view}_{self.number:02d}.png"

    @property
    def who(self) -> Person:
        """Pair and person."""
        return self.pair, self.person


def parse_name(name: str, place: str | Path) -> Cell:
    """The cell of a file name like ``1_001_1_01.png``, with any extension."""
    if match := _NAME.fullmatch(name):
        pair, person, view, number = map(int, match.groups())
        cell = Cell(pair, person, number)
        known = 1 <= pair <= len(PAIR_SIZES) and 1 <= person <= PAIR_SIZES[pair - 1]
        if known and 1 <= number <= 2 * VIEW_IMAGES and view == cell.view:
            return cell
    raise ValueError(f"{place}: {name!r} is not a file name of CUHK03, which are like {_EXAMPLE}")


def new_protocol_file(boxes: str) -> str:
    """The name of the file with the new protocol for a kind of boxes."""
    return f"cuhk03_new_protocol_config_{boxes}.mat"


def find_new_protocol(root: Path, boxes: str) -> Path:
    """The new protocol's file: in a folder, the folder above, or ``cuhk03_release`` below."""
    name = new_protocol_file(boxes)
    for folder in (root, root.resolve().parent, root / "cuhk03_release"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{name} is neither in {root} nor in the folder above. The archive does not hold the new "
        "protocol: get the file from https://github.com/zhunzhong07/person-re-ranking "
        "(evaluation/data/CUHK03) and put it there, or choose protocol=classic"
    )


def read_new_protocol(path: Path) -> list[list[tuple[Cell, int]]]:
    """Train, query and gallery images with their pids; the file's indices count from 1."""
    index_names = ["train_idx", "query_idx", "gallery_idx"]
    content = load_mat(path, ["filelist", "labels", *index_names])
    try:
        names = [str(np.asarray(name).item()) for name in content["filelist"].ravel()]
        pids = [int(pid) for pid in content["labels"].ravel()]
        indices = {name: [int(index) for index in content[name].ravel()] for name in index_names}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not CUHK03's new protocol: {error}") from error
    if len(names) != len(pids):
        raise ValueError(f"{path} has {len(names)} names in filelist, but {len(pids)} labels")
    cells = [parse_name(name, f"{path}, filelist {i}") for i, name in enumerate(names, start=1)]
    for name, numbers in indices.items():
        if not numbers:
            raise ValueError(f"{path}: {name} is empty")
        if wrong := [number for number in numbers if not 1 <= number <= len(cells)]:
            found = f"{wrong[0]}, not a number from 1 to {len(cells)}"
            raise ValueError(f"{path}: {name} holds {found}")
    return [[(cells[i - 1], pids[i - 1]) for i in numbers] for numbers in indices.values()]


def write_test_sets(
    path: Path, test_sets: Sequence[set[Person]], num_images: dict[str, int]
) -> None:
    """Write the classic protocol's test sets, and the number of images of each kind of boxes."""
    lists = [[f"{pair}_{person:03d}" for pair, person in sorted(people)] for people in test_sets]
    about = "CUHK03: the people of each of the classic protocol's test sets, as PAIR_PERSON"
    text = json.dumps({"about": about, "num_images": num_images, "test_sets": lists}, indent=1)
    write_text(path, text + "\n")


def read_test_sets(path: Path) -> tuple[list[set[Person]], dict[str, int]]:
    """Read what `write_test_sets` wrote: test sets, and numbers of images."""
    content = _read_json(path)
    try:
        test_sets = [{_person(name) for name in people} for people in content["test_sets"]]
        return test_sets, {boxes: int(n) for boxes, n in content["num_images"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not what rga-timm extract-cuhk03 writes: {error!r}") from error


def read_torchreid_split(path: Path, split: int) -> tuple[list[Cell], list[Cell]]:
    """Train and test images of a split in torchreid's ``splits_classic_{detected,labeled}.json``.

    Its paths are those of the machine that wrote it, so only file names are used.
    """
    content = _read_json(path)
    try:
        # It takes both / and \\ as separators.
        lists = [
            [PureWindowsPath(row[0]).name for row in content[split][side]]
            for side in ("train", "query")
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} does not hold split {split} as torchreid writes it") from error
    train, test = ([parse_name(name, path) for name in names] for names in lists)
    return train, test


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error


def _person(name: str) -> Person:
    pair, person = name.split("_")
    return int(pair), int(person)
