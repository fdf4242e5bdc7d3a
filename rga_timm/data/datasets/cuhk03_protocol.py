"""CUHK03's file names, its two protocols, and the lists that say who is tested on.

The classic protocol (Li et al., CVPR 2014) is 20 test sets of 100 people, which are in the
archive's own file. The new one (Zhong et al., "Re-ranking Person Re-identification with
k-reciprocal Encoding", CVPR 2017) is in files of its own, one for each kind of boxes. What is read
from a file is a ValueError if it is another one.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..matlab import load_mat

VIEW_IMAGES = 5  # of a person at most, from each of the two cameras of a pair
PAIR_SIZES = (843, 440, 77, 58, 49)  # how many people each pair of cameras saw; 1,467 in all

# The file that rga-timm extract-cuhk03 writes beside the images.
TEST_SETS = "cuhk03_test_sets.json"

# 1_001_1_01.png: pair of cameras, person, view, number of the image; all from 1.
_NAME = re.compile(r"(\d)_(\d{3})_([12])_(\d{2})\.\w+")
_EXAMPLE = "1_001_1_01.png (PAIR_PERSON_VIEW_NUMBER.png)"

Person = tuple[int, int]  # pair of cameras, number in it; both from 1


class Cell(NamedTuple):
    """Where an image is in the archive's file, and so which one it is. All numbers from 1."""

    pair: int  # of cameras, 1 to 5
    person: int  # within the pair
    number: int  # of the image: 1 to 5 are from the pair's first camera, 6 to 10 from its second

    @property
    def view(self) -> int:
        """1 or 2: which of the pair's two cameras. In the protocols this is the camera."""
        return 1 if self.number <= VIEW_IMAGES else 2

    @property
    def pid(self) -> int:
        """1 to 1,467: the person, counted through the pairs, as the new protocol's labels do."""
        return sum(PAIR_SIZES[: self.pair - 1]) + self.person

    @property
    def name(self) -> str:
        """That of the image's file where the archive has been extracted."""
        return f"{self.pair}_{self.person:03d}_{self.view}_{self.number:02d}.png"

    @property
    def who(self) -> Person:
        """Pair and person."""
        return self.pair, self.person


def parse_name(name: str, place: str | Path) -> Cell:
    """The cell of a name like ``1_001_1_01.png``, whatever its extension; errors name ``place``."""
    if match := _NAME.fullmatch(name):
        pair, person, view, number = map(int, match.groups())
        cell = Cell(pair, person, number)
        known = 1 <= pair <= len(PAIR_SIZES) and 1 <= person <= PAIR_SIZES[pair - 1]
        if known and 1 <= number <= 2 * VIEW_IMAGES and view == cell.view:
            return cell
    raise ValueError(f"{place}: {name!r} is not a file name of CUHK03, which are like {_EXAMPLE}")


class NewProtocol(NamedTuple):
    """The images of each split with their pids, in the order of the lists."""

    train: list[tuple[Cell, int]]
    query: list[tuple[Cell, int]]
    gallery: list[tuple[Cell, int]]


def new_protocol_file(boxes: str) -> str:
    """The name of the file with the new protocol for a kind of boxes."""
    return f"cuhk03_new_protocol_config_{boxes}.mat"


def find_new_protocol(root: Path, boxes: str) -> Path:
    """The new protocol's file: in a folder, the folder above, or ``cuhk03_release`` below.

    Raises:
        FileNotFoundError: It is in none of them.
    """
    name = new_protocol_file(boxes)
    for folder in (root, root.resolve().parent, root / "cuhk03_release"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{name} is neither in {root} nor in the folder above. The archive does not hold the new "
        "protocol: get the file from https://github.com/zhunzhong07/person-re-ranking "
        "(evaluation/data/CUHK03) and put it there, or take protocol=classic"
    )


def read_new_protocol(path: Path) -> NewProtocol:
    """Read ``cuhk03_new_protocol_config_{detected,labeled}.mat``, whose indices count from 1."""
    index_names = [f"{split}_idx" for split in NewProtocol._fields]
    content = load_mat(path, ["filelist", "labels", *index_names])
    try:
        names = [str(np.asarray(name).item()) for name in content["filelist"].ravel()]
        pids = [int(pid) for pid in content["labels"].ravel()]
        indices = [[int(index) for index in content[name].ravel()] for name in index_names]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not CUHK03's new protocol: {error}") from error
    if len(names) != len(pids):
        raise ValueError(f"{path} has {len(names)} names in filelist, but {len(pids)} labels")
    cells = [parse_name(name, f"{path}, filelist {i}") for i, name in enumerate(names, start=1)]
    for split, numbers in zip(NewProtocol._fields, indices, strict=True):
        if not numbers:
            raise ValueError(f"{path}: {split}_idx is empty")
        if wrong := [number for number in numbers if not 1 <= number <= len(cells)]:
            raise ValueError(
                f"{path}: {split}_idx holds {wrong[0]}, but there are {len(cells)} images, from 1"
            )
    return NewProtocol(*([(cells[i - 1], pids[i - 1]) for i in numbers] for numbers in indices))


def write_test_sets(
    path: Path, test_sets: Sequence[set[Person]], num_images: dict[str, int]
) -> None:
    """Write the classic protocol's test sets, with how many images there are of each boxes."""
    lists = [[f"{pair}_{person:03d}" for pair, person in sorted(people)] for people in test_sets]
    about = "CUHK03: the people of each of the classic protocol's test sets, as PAIR_PERSON"
    text = json.dumps({"about": about, "num_images": num_images, "test_sets": lists}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def read_test_sets(path: Path) -> tuple[list[set[Person]], dict[str, int]]:
    """Read what `write_test_sets` wrote: the test sets, and how many images there are."""
    content = _read_json(path)
    try:
        test_sets = [{_person(name) for name in people} for people in content["test_sets"]]
        return test_sets, {boxes: int(n) for boxes, n in content["num_images"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not what rga-timm extract-cuhk03 writes: {error!r}") from error


def read_torchreid_split(path: Path, split: int) -> tuple[list[Cell], list[Cell]]:
    """The images of the train and of the test people in torchreid's list of classic splits.

    The list, ``splits_classic_{detected,labeled}.json``, holds the paths of the machine that it was
    written on. Only file names are used.
    """
    content = _read_json(path)
    try:
        lists = content[split]
        # A path of Windows has backslashes.
        names = [
            [re.split(r"[/\\]", row[0])[-1] for row in lists[key]] for key in ("train", "query")
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{path} does not hold split {split} as torchreid writes it: {error!r}"
        ) from error
    train, test = ([parse_name(name, path) for name in group] for group in names)
    return train, test


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one, too
        raise ValueError(f"{path} is not a JSON file: {error}") from error


def _person(name: str) -> Person:
    pair, person = name.split("_")
    return int(pair), int(person)
