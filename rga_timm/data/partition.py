"""Partitions of people into those to train on and those to test on.

Small data sets are tested on the mean over ten partitions, which few publish. For the others they
are drawn here, the same ones everywhere and always, or read from a file.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PARTITIONS = 10  # the mean over ten is what papers report


class Partition(NamedTuple):
    """The people to train on and those to test on."""

    train: frozenset[int]
    test: frozenset[int]


def random_partition(pids: Iterable[int], size: int, split: int) -> set[int]:
    """Choose ``size`` of the people at random, always the same ones.

    The choice depends on the set of pids and on ``split``, the number of the partition from 0,
    alone: each person in the order of the pids draws 64 bits of a PCG64 seeded with ``split``, and
    those with the smallest draws are chosen. (NumPy may change ``Generator.permutation`` and the
    like in a later version, but not the bit generator.) Invalid numbers are a ValueError.
    """
    people = sorted(set(pids))
    if not 0 < size < len(people):
        raise ValueError(f"{size} of {len(people)} people leaves nobody on one of the sides")
    if split < 0:
        raise ValueError(f"partitions are counted from 0: there is no split {split}")
    draws = np.random.PCG64(split).random_raw(len(people))
    chosen = np.argsort(draws, kind="stable")[:size]
    return {people[index] for index in chosen}


def choose_partition(
    root: Path, pid_of: Mapping[str, int], *, size: int, split: int, file: str | None = None
) -> Partition:
    """Return one of ten partitions: from a file if one is named, else a random one.

    A partition file that is not named is never read: torchreid draws one anew on each machine. A
    relative path is looked for in ``root``, in the folder above, and in the working directory.
    ``pid_of`` maps the image names of the people to be partitioned to their pids, ``size`` is how
    many to train on, ``split`` the number of the partition, 0 to 9.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not hold ten partitions of these people.
    """
    if file is None:
        people = set(pid_of.values())
        train = random_partition(people, size, split)
        return Partition(frozenset(train), frozenset(people - train))
    named = Path(file).expanduser()
    places = list(dict.fromkeys([root / named, root.absolute().parent / named, named]))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"there is no partition file {' or '.join(map(str, places))}")
    partitions = read_partition_file(path, pid_of)
    if len(partitions) != PARTITIONS:
        found = f"{path} holds {len(partitions)} partitions"
        raise ValueError(f"{found}; the protocol is the mean over {PARTITIONS}")
    if not 0 <= split < PARTITIONS:
        raise ValueError(f"{path} holds the partitions 0 to {PARTITIONS - 1}, not {split}")
    return partitions[split]


def read_partition_file(path: Path, pid_of: Mapping[str, int]) -> list[Partition]:
    """Read the partitions that a JSON file holds.

    It is a list of objects, whose ``"train"`` and ``"test"`` are lists of people::

        [{"train": [1, 4, 7], "test": [2, 3, 5]}, …]

    ``"query"`` and ``"gallery"`` may replace ``"test"``. A person is a pid, or the path of an
    image, or a list that starts with such a path, of which only the file's name counts: so
    torchreid's files can be read. torchreid writes some partitions twice, with the cameras swapped;
    one that equals the one before is left out.

    A file of another form, an unknown image or person, somebody on both sides, and nobody on one
    are a ValueError.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # of the encoding too
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path} is not a list of partitions")
    partitions: list[Partition] = []
    for number, entry in enumerate(entries):
        partition = _partition(f"{path}, partition {number}", entry, pid_of)
        if partition not in partitions[-1:]:
            partitions.append(partition)
    return partitions


def _partition(place: str, entry: Any, pid_of: Mapping[str, int]) -> Partition:
    if not (isinstance(entry, dict) and "train" in entry and ("test" in entry or "query" in entry)):
        raise ValueError(f'{place} is not an object with "train" and "test" (or "query")')
    people = {
        side: _people(f"{place}, {side}", entry.get(side, []), pid_of)
        for side in ("train", "test", "query", "gallery")
    }
    train, test = people["train"], people["test"] | people["query"] | people["gallery"]
    if shared := sorted(train & test):
        text = f"{place} both trains and tests on {len(shared)} people"
        raise ValueError(f"{text}, such as {shared[0]}")
    if not train or not test:
        raise ValueError(f"{place} has nobody to {'test' if train else 'train'} on")
    return Partition(train, test)


def _people(place: str, items: Any, pid_of: Mapping[str, int]) -> frozenset[int]:
    """Return the pids of a list of pids, paths, or lists that start with a path."""
    if not isinstance(items, list):
        raise ValueError(f"{place} is not a list")
    people = set(pid_of.values())
    pids: dict[str | int, int | None] = {}
    for item in items:
        key = item[0] if isinstance(item, list) and item else item
        if isinstance(key, str):
            pid = pid_of.get(re.split(r"[/\\]", key)[-1])
        elif type(item) is int:
            pid = item if item in people else None
        else:
            raise ValueError(f"{place}: {item!r} is neither a person's number nor an image's path")
        pids[key] = pid
    if missing := [key for key, pid in pids.items() if pid is None]:
        text = f"{place} names {len(missing)} that are not there, or not in both cameras, such as"
        raise ValueError(f"{text} {missing[0]}")
    return frozenset(pid for pid in pids.values() if pid is not None)
