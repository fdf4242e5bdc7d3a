"""CUHK03 (Li et al., "DeepReID: Deep Filter Pairing Neural Network", CVPR 2014).

1,467 people, each seen by one of 5 pairs of cameras, at most 5 times by each of the two. There are
two versions of the images: with boxes drawn by hand (``labeled``) and by a detector (``detected``).

It is distributed as the archive's own HDF5 file, as images extracted from it, and, for the new
protocol, in Market-1501's layout (CUHK03-NP). The first pair of cameras alone is also available, as
folders of images.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from ..layout import Layout, file_names, find_layout
from ..naming import Naming
from ..reader import ReidImage
from ..registry import register_dataset
from ..splits import Counts, ReidSplits
from . import cuhk03_protocol as lists
from .cuhk03_mat import MatOpener, list_cells, list_test_sets
from .cuhk03_protocol import TEST_SETS, VIEW_IMAGES, Cell, Person
from .market1501 import FOLDERS

MAT = "cuhk-03.mat"
NUM_TEST_SETS = 20

# Person, camera, number of the image in the new protocol's list.
_NP_NAMING = Naming(
    "CUHK03",
    r"(?P<pid>\d+)_c(?P<camid>[12])(s\d+)?(_\d+)+(\.jpe?g|\.png|\.bmp)+",
    "0001_c1_1.png (PERSON_cCAMERA_NUMBER.png)",
)
# Person, number of the image; both from 0.
_PAIR_NAMING = Naming(
    "CUHK03",
    r"(?P<pid>\d+)_0(?P<number>\d)(\.jpe?g|\.png|\.bmp)",
    "0000_05.jpg (PERSON_NUMBER.jpg)",
)

RAW = Layout("the archive's own", (MAT,))

# Of the new protocol. None are published for the classic one.
_PUBLISHED = {
    boxes: {
        "train": Counts(train, 767, 2),
        "query": Counts(1400, 700, 2),
        "gallery": Counts(gallery, 700, 2),
    }
    for boxes, train, gallery in (("detected", 7365, 5332), ("labeled", 7368, 5328))
}


def _layouts(boxes: str) -> dict[str, Layout]:
    """The layouts with a kind of boxes."""
    images = f"images_{boxes}"
    return {
        "raw": RAW,
        "extracted": Layout("torchreid's extracted", (images,)),
        "own list": Layout("rga-timm extract-cuhk03's", (images, TEST_SETS)),
        "torchreid's list": Layout(
            "torchreid's extracted", (images, f"splits_classic_{boxes}.json")
        ),
        "np": Layout("CUHK03-NP's", tuple(f"{boxes}/{folder}" for folder in FOLDERS)),
        "pair": Layout("the first pair of cameras'", (f"{boxes}/train", f"{boxes}/val")),
    }


# The layouts of each protocol, in order of preference.
_LAYOUTS_OF = {
    "new": ("extracted", "np", "raw"),
    "classic": ("own list", "torchreid's list", "raw", "pair"),
}


@register_dataset(
    "cuhk03",
    title="CUHK03",
    layouts=list(_layouts("detected").values()),
    published=_PUBLISHED["detected"],
    partitions=NUM_TEST_SETS,
)
def cuhk03(
    root: Path | None,
    *,
    protocol: Literal["new", "classic"] = "new",
    boxes: Literal["labeled", "detected"] = "detected",
    split: int = 0,
) -> ReidSplits:
    """CUHK03, with people numbered through the pairs of cameras, 1 to 1,467, and views as cameras.

    The archive's HDF5 file is read as it is (this needs h5py); `rga-timm extract-cuhk03` writes
    image files. Both give the same images under the same names, and so the same fingerprints.

    The first pair of cameras alone has protocol=classic and split=0 only: it is tested on its
    ``val``. Both its folders number people from 0, but the people are different ones.

    Args:
        root: The folder with ``cuhk-03.mat``, with ``images_detected`` and ``images_labeled``, or
            with ``detected`` and ``labeled``; or a folder around it. The new protocol also needs
            ``cuhk03_new_protocol_config_{boxes}.mat`` there or in the folder above, except for
            CUHK03-NP.
        protocol: ``new``: 767 people to train on and 700 to test on, with one query of each from
            each camera (Zhong et al., CVPR 2017). ``classic``: 1,367 people to train on and 100 to
            test on; all images of the 100 are queries, and the gallery is one random image of each.
        boxes: ``detected`` is the harder kind, and the usual one.
        split: Which of the 20 test sets of ``classic``, from 0.
    """
    if protocol == "new" and split:
        raise ValueError(f"protocol=new has one split: split={split} needs protocol=classic")
    root, kind = _find(root, protocol, boxes)
    if kind == "np":
        found = [_NP_NAMING.read_folder(root, f"{boxes}/{folder}") for folder in FOLDERS]
        return _new(root, boxes, found)
    if kind == "pair":
        return _read_pair(root, boxes, split)
    images = _read_images(root, boxes, from_mat=kind == "raw")
    if protocol == "new":
        path = lists.find_new_protocol(root, boxes)
        groups = lists.read_new_protocol(path)
        images.require((cell for group in groups for cell, _ in group), path)
        found = [[images.image(*item) for item in group] for group in groups]
        return _new(root, boxes, found, opener=images.opener)
    if kind == "torchreid's list":
        path = root / f"splits_classic_{boxes}.json"
        train, test = lists.read_torchreid_split(path, split)
        images.require([*train, *test], path)
    else:
        people = _test_people(images, boxes, split, from_mat=kind == "raw")
        train = [cell for cell in images.paths if cell.who not in people]
        test = [cell for cell in images.paths if cell.who in people]
    both = ([images.image(cell, cell.pid) for cell in sorted(cells)] for cells in (train, test))
    return _classic(root, *both, opener=images.opener)


class _Images(NamedTuple):
    """All images of a kind of boxes, in order."""

    root: Path
    paths: dict[Cell, str]
    opener: Callable[[str], BinaryIO] | None = None

    def require(self, cells: Iterable[Cell], list_path: Path) -> None:
        """Raise a FileNotFoundError unless all images that a list names exist."""
        if missing := [cell for cell in cells if cell not in self.paths]:
            where = self.root / MAT if self.opener else self.root
            raise FileNotFoundError(
                f"{list_path} names {missing[0].name}, which is not in {where}, and "
                f"{len(missing) - 1} others that are not. Was the extraction not finished?"
            )

    def image(self, cell: Cell, pid: int) -> ReidImage:
        return ReidImage(self.paths[cell], pid, cell.view)


def _find(root: Path | None, protocol: str, boxes: str) -> tuple[Path, str]:
    """The root and the kind of layout."""
    layouts = _layouts(boxes)
    suited = {layouts[kind]: kind for kind in _LAYOUTS_OF[protocol]}
    try:
        root, layout = find_layout("cuhk03", root, list(suited))
    except FileNotFoundError:
        other = "classic" if protocol == "new" else "new"
        kind = "pair" if other == "classic" else "np"
        with suppress(FileNotFoundError):
            root, layout = find_layout("cuhk03", root, [layouts[kind]])
            only = f"which has protocol={other} only, not protocol={protocol}"
            raise ValueError(f"{root} is in {layout.name} layout, {only}") from None
        raise
    return root, suited[layout]


def _read_images(root: Path, boxes: str, from_mat: bool) -> _Images:
    """All images; those in the archive's file get the names that extracted ones have."""
    folder = f"images_{boxes}"
    if from_mat:
        path = root / MAT
        paths = {cell: f"{folder}/{cell.name}" for cell in list_cells(path, boxes)}
        return _Images(root, paths, MatOpener(str(path.resolve())))
    files = file_names(root / folder)
    names = {lists.parse_name(name, root / folder): f"{folder}/{name}" for name in files}
    return _Images(root, dict(sorted(names.items())))


def _test_people(images: _Images, boxes: str, split: int, from_mat: bool) -> set[Person]:
    path = images.root / (MAT if from_mat else TEST_SETS)
    if from_mat:
        test_sets = list_test_sets(path)
    else:
        test_sets, num_images = lists.read_test_sets(path)
        if num_images.get(boxes) != len(images.paths):
            raise FileNotFoundError(
                f"{images.root / f'images_{boxes}'} holds {len(images.paths)} images, but "
                f"{num_images.get(boxes)} were extracted. Run rga-timm extract-cuhk03 again"
            )
    if split >= len(test_sets):
        raise ValueError(f"{path} has {len(test_sets)} test sets: there is no split={split}")
    people = {cell.who for cell in images.paths}
    if unknown := sorted(test_sets[split] - people):
        pair, person = unknown[0]
        who = f"{len(unknown)} people without images, such as person {person} of pair {pair}"
        raise ValueError(f"{path}: test set {split + 1} names {who}")
    return test_sets[split]


def _new(
    root: Path, boxes: str, splits: Iterable[Sequence[ReidImage]], **attributes: Any
) -> ReidSplits:
    """The new protocol, from its images to train, queries and gallery."""
    published = _PUBLISHED[boxes]
    by_name: dict[str, Any] = dict(zip(published, splits, strict=True))
    return ReidSplits.from_images("cuhk03", root, published=published, **by_name, **attributes)


def _classic(
    root: Path, train: Sequence[ReidImage], test: Sequence[ReidImage], **attributes: Any
) -> ReidSplits:
    """The classic protocol: every image of a test person is in both query and gallery."""
    if not train or not test:
        raise FileNotFoundError(f"{root} has {len(train)} images to train and {len(test)} to test")
    attributes |= {"published": {}, "single_gallery_shot": True}
    return ReidSplits.from_images(
        "cuhk03", root, train=train, query=test, gallery=test, **attributes
    )


def _read_pair(root: Path, boxes: str, split: int) -> ReidSplits:
    """The first pair of cameras, as folders."""
    if split:
        raise ValueError(f"{root} is the first pair of cameras, which has no split={split}, only 0")
    splits = (
        _PAIR_NAMING.read_folder(
            root, f"{boxes}/{folder}", lambda match: 1 + int(match["number"]) // VIEW_IMAGES
        )
        for folder in ("train", "val")
    )
    return _classic(root, *splits, same_numbering=False)
