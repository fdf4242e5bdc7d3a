"""MARS (Zheng et al., "MARS: A Video Benchmark for Large-Scale Person Re-identification", 2016).

The people of Market-1501 as tracklets made by a detector and a tracker: 8,298 tracklets (509,914
images) of 625 people to train on, 1,980 queries, and 10,200 other tracklets, 870 of them junk.
"""

import re
from collections.abc import Collection
from pathlib import Path

from ..layout import Layout, ListedFiles, find_layout, read_lines
from ..matches import JUNK_PID
from ..matlab import read_matrix
from ..reader import ReidImage
from ..registry import register_dataset
from ..splits import Counts, ReidSplits

_NAME = re.compile(r"(?P<pid>\d{4})C(?P<camid>\d)T\d+F\d+\.jpg")
_EXAMPLE = "0001C1T0002F003.jpg (person 1, camera 1, tracklet 2, frame 3)"

_PATHS = (
    "bbox_train", "bbox_test", "info/train_name.txt", "info/test_name.txt",
    "info/tracks_train_info.mat", "info/tracks_test_info.mat", "info/query_IDX.mat",
)  # fmt: skip
LAYOUT = Layout("the archives' own with the folder info of the authors' evaluation", _PATHS)

# From the authors' info; junk left out. The gallery's ids include the distractor.
_TRAIN_AND_QUERY = {"train": Counts(509914, 625, 6, 8298), "query": Counts(114493, 626, 6, 1980)}
_PUBLISHED = {**_TRAIN_AND_QUERY, "gallery": Counts(543216, 621, 6, 9330)}
_PUBLISHED_WITH_QUERIES = {**_TRAIN_AND_QUERY, "gallery": Counts(657709, 635, 6, 11310)}


@register_dataset("mars", title="MARS", layouts=[LAYOUT], published=_PUBLISHED)
def mars(root: Path | None, *, queries_in_gallery: bool = False) -> ReidSplits:
    """MARS. A tracklet's number is its row in the authors' table, from 1.

    Junk (pid -1) is dropped; distractors (pid 0) stay in the gallery.

    Args:
        root: The data set's folder, or one around it.
        queries_in_gallery: Whether the gallery also holds the queries, as in the authors' own
            evaluation. Without them, as in torchreid and most others, 140 of the 1,980 queries have
            no match and are not counted.
    """
    root, _ = find_layout("mars", root, [LAYOUT])
    train = _read_tracklets(root, "bbox_train", "train_name.txt", "train")
    test = _read_tracklets(root, "bbox_test", "test_name.txt", "test")
    queries = _read_queries(root / "info" / "query_IDX.mat", test)
    gallery = sorted(test if queries_in_gallery else test.keys() - set(queries))
    return ReidSplits.from_images(
        "mars",
        root,
        train=[image for images in train.values() for image in images],
        query=[image for number in queries for image in test[number]],
        gallery=[image for number in gallery for image in test[number]],
        published=_PUBLISHED_WITH_QUERIES if queries_in_gallery else None,
    )


def _read_tracklets(root: Path, folder: str, names: str, split: str) -> dict[int, list[ReidImage]]:
    """The images of each tracklet by its number, without junk."""
    lines = read_lines(root / "info" / names)
    path = root / "info" / f"tracks_{split}_info.mat"
    table = read_matrix(path, f"track_{split}_info")  # the file's name has an s more
    if table.shape[1] != 4:
        expected = "first image, last image, person, camera"
        raise ValueError(f"{path} has {table.shape[1]} columns, not 4: {expected}")
    tracklets: dict[int, list[ReidImage]] = {}
    missing: list[str] = []
    present = ListedFiles(root)
    for number, (first, last, pid, camid) in enumerate(table.tolist(), start=1):
        if pid == JUNK_PID:
            continue
        if not 1 <= first <= last <= len(lines):
            found = f"images {first} to {last}, but {names} has {len(lines)}"
            raise ValueError(f"{path}, row {number}: {found}")
        tracklets[number] = []
        for place, name in lines[first - 1 : last]:
            match = _NAME.fullmatch(name)
            if match is None:
                raise ValueError(f"{place}: {name} is not named as in MARS, such as {_EXAMPLE}")
            if (int(match["pid"]), int(match["camid"])) != (pid, camid):
                row = f"person {pid} and camera {camid}, as in {path}, row {number}"
                raise ValueError(f"{place}: {name} is not of {row}")
            image = ReidImage(f"{folder}/{pid:04d}/{name}", pid, camid, number)
            tracklets[number].append(image)
            if image.path not in present:
                missing.append(image.path)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} images of {root / 'info' / names} are missing, such as "
            f"{root / missing[0]}: was the archive of {folder} unpacked completely?"
        )
    if not tracklets:
        raise ValueError(f"{path} holds no tracklets of people")
    return tracklets


def _read_queries(path: Path, test: Collection[int]) -> list[int]:
    """The numbers of the test tracklets that are queries."""
    queries: list[int] = read_matrix(path, "query_IDX").ravel().tolist()
    if not queries or len(set(queries)) != len(queries):
        raise ValueError(f"{path} is empty, or names a tracklet twice")
    if wrong := [number for number in queries if number not in test]:
        raise ValueError(f"{path}: {wrong[0]} is not the number of a person's test tracklet")
    return queries
