"""iLIDS-VID (Wang et al., "Person Re-Identification by Video Ranking", ECCV 2014).

300 people, each with one tracklet from each of two cameras in an airport. It comes with ten
partitions: 150 people to train on, 150 to test on. Published scores are the mean over the ten.
"""

from pathlib import Path

from ..layout import Layout, find_layout, subfolders
from ..matlab import read_matrix
from ..naming import Naming
from ..reader import ReidImage
from ..registry import register_dataset
from ..splits import Counts, ReidSplits

_SEQUENCES = "i-LIDS-VID/sequences"
_PARTITIONS = "train-test people splits/train_test_splits_ilidsvid.mat"
LAYOUT = Layout("the archive's own", (f"{_SEQUENCES}/cam1", f"{_SEQUENCES}/cam2", _PARTITIONS))

_FOLDERS = Naming("iLIDS-VID", r"person\d{3}", "person001")

_TEST = Counts(None, 150, 1, 150)
_PUBLISHED = {"train": Counts(None, 150, 2, 300), "query": _TEST, "gallery": _TEST}


@register_dataset(
    "ilids_vid", title="iLIDS-VID", layouts=[LAYOUT], published=_PUBLISHED, partitions=10
)
def ilids_vid(root: Path | None, *, split: int = 0) -> ReidSplits:
    """iLIDS-VID: queries are tracklets of camera 1, the gallery those of camera 2.

    The tracklets of the i-th person, from 1, are numbered 2i - 1 and 2i.

    Args:
        root: The data set's folder, or one around it.
        split: Number of the partition, 0 to 9.
    """
    root, _ = find_layout("ilids_vid", root, [LAYOUT])
    people = [_people(root / _SEQUENCES / camera) for camera in ("cam1", "cam2")]
    if people[0] != people[1]:
        person = min(set(people[0]) ^ set(people[1]))
        raise ValueError(f"{root / _SEQUENCES}: {person} is under one of the two cameras only")
    train, test = _read_partition(root / _PARTITIONS, split, len(people[0]))
    cam1, cam2 = (
        [_read_tracklet(root, person, i, camid) for i, person in enumerate(people[0], start=1)]
        for camid in (1, 2)
    )
    return ReidSplits.from_images(
        "ilids_vid",
        root,
        train=[image for i in train for image in (*cam1[i - 1], *cam2[i - 1])],
        query=[image for i in test for image in cam1[i - 1]],
        gallery=[image for i in test for image in cam2[i - 1]],
    )


def _people(folder: Path) -> list[str]:
    """The names of the people's folders, in the order of the partitions' numbers."""
    return [_FOLDERS.match(folder, path.name).string for path in subfolders(folder)]


def _read_tracklet(root: Path, person: str, place: int, camid: int) -> list[ReidImage]:
    pattern = rf"cam{camid}_person(?P<pid>{person.removeprefix('person')})_\d+\.png"
    naming = Naming("iLIDS-VID", pattern, f"cam{camid}_{person}_00317.png")
    images = naming.read_folder(root, f"{_SEQUENCES}/cam{camid}/{person}", camid)
    return [image._replace(tracklet=2 * place - 2 + camid) for image in images]


def _read_partition(path: Path, split: int, count: int) -> tuple[list[int], list[int]]:
    """Numbers of the people to train on (second half of a row) and to test on, from 1, sorted."""
    table = read_matrix(path, "ls_set")
    if not 0 <= split < len(table):
        raise ValueError(f"{path} holds the partitions 0 to {len(table) - 1}, not {split}")
    row = table[split].tolist()
    if sorted(row) != list(range(1, count + 1)):
        raise ValueError(f"{path}, row {split + 1}: not a permutation of the {count} people found")
    half = count // 2
    return sorted(row[half:]), sorted(row[:half])
