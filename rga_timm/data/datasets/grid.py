"""QMUL underground GRID.

Loy et al., "Time-Delayed Correlation Analysis for Multi-Camera Activity Understanding", IJCV 2010.
The partitions: Liu et al., "Person Re-Identification: What Features are Important?", ECCV 2012
workshops.

250 people with one query image and one gallery image, 775 images of other people, 8 cameras. Ten
given partitions: 125 people to train on, 125 to test on; the 775 are always in the gallery.
"""

from pathlib import Path

from ..layout import Layout, find_layout
from ..matlab import load_mat
from ..naming import Naming
from ..partition import PARTITIONS
from ..registry import register_dataset
from ..splits import DISTRACTOR_PID, Counts, ReidSplits
from .single_shot import one_of_each, require

TITLE = "GRID"
PARTITION_FILE = "features_and_partitions.mat"

# Person 0 is none of the 250.
_NAMING = Naming(
    TITLE,
    r"(?P<pid>\d+)_(?P<camid>\d+)(_-?\d+)+\.(jpe?g|png)",
    "0001_1_25004_107_32_106_221.jpeg (PERSON_CAMERA_FRAME_BOX.jpeg)",
)
LAYOUT = Layout("the archive's own", ("probe", "gallery", PARTITION_FILE))

# The gallery's ids include the distractor. The number of cameras of each split is not published.
_PUBLISHED = {"train": Counts(250, 125), "query": Counts(125, 125), "gallery": Counts(900, 126)}


@register_dataset(
    "grid", title="QMUL GRID", layouts=[LAYOUT], published=_PUBLISHED, partitions=PARTITIONS
)
def grid(root: Path | None, *, split: int = 0) -> ReidSplits:
    """One of the ten given partitions of GRID.

    Args:
        root: The data set's folder, or one around it.
        split: Number of the partition, 0 to 9.
    """
    root, _ = find_layout("grid", root, [LAYOUT])
    probes, others = (_NAMING.read_folder(root, folder) for folder in ("probe", "gallery"))
    distractors = [image for image in others if image.pid == DISTRACTOR_PID]
    queries = one_of_each(probes, root / "probe")
    known = (image for image in others if image.pid != DISTRACTOR_PID)
    answers = one_of_each(known, root / "gallery")
    require(answers, queries, root / "probe", TITLE)
    require(queries, answers, root / "gallery", TITLE)
    train = _read_partition(root / PARTITION_FILE, split, set(queries))
    test = sorted(queries.keys() - train)
    return ReidSplits.from_images(
        "grid",
        root,
        train=[images[pid] for images in (queries, answers) for pid in sorted(train)],
        query=[queries[pid] for pid in test],
        gallery=distractors + [answers[pid] for pid in test],
    )


def _read_partition(path: Path, split: int, people: set[int]) -> set[int]:
    """The pids to train on: the third field of a struct, usually named ``personIdx``."""
    cells = load_mat(path, ["trainIdxAll"])["trainIdxAll"].ravel()
    if len(cells) != PARTITIONS:
        raise ValueError(f"{path} holds {len(cells)} partitions; {TITLE} comes with {PARTITIONS}")
    place = f"{path}, trainIdxAll{{{split + 1}}}"  # as MATLAB writes it
    fields = list(cells[split].dtype.names or ())
    if len(fields) < 3:
        raise ValueError(f"{place} is not a struct of probeImIdx, galleryImIdx and personIdx")
    field = "personIdx" if "personIdx" in fields else fields[2]
    listed = cells[split][field].ravel()[0].ravel().tolist()
    train = {int(pid) for pid in listed}
    if len(train) != len(listed):
        raise ValueError(f"{place}.{field} names somebody twice")
    if missing := sorted(train - people):
        missed = f"{len(missing)} people who are not there, such as {missing[0]}"
        raise ValueError(f"{place}.{field} names {missed}")
    if not train or train == people:
        raise ValueError(f"{place}.{field} leaves nobody to {'test' if train else 'train'} on")
    return train
