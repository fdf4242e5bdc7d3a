"""Occluded-REID (Zhuo et al., "Occluded Person Re-identification", ICME 2018).

200 people, taken with mobile cameras: each has 5 images of the occluded and 5 of the whole body.
There is no training set; papers train on Market-1501.
"""

from pathlib import Path
from typing import Any

from ..layout import Layout, find_layout, subfolders
from ..naming import Naming
from ..reader import ReidImage
from ..registry import register_dataset
from ..splits import Counts, ReidSplits

NAME = r"(?P<pid>\d+)_\d+\.(jpe?g|png|tiff?|bmp)"
_NAMING = Naming("Occluded-REID", NAME, "001/001_01.tif (PERSON/PERSON_NUMBER.tif)")

# The folder for each person: Partial-REID has folders of the same names without them.
_ARCHIVE = Layout("the archive's own", ("occluded_body_images/*/*_*", "whole_body_images/*/*_*"))
_FASTREID = Layout("fast-reid's", ("OccludedREID/query", "OccludedREID/gallery"))
LAYOUTS = [_ARCHIVE, _FASTREID]

_PUBLISHED = {"query": Counts(1000, 200), "gallery": Counts(1000, 200)}


@register_dataset("occluded_reid", title="Occluded-REID", layouts=LAYOUTS, published=_PUBLISHED)
def occluded_reid(root: Path | None) -> ReidSplits:
    """Occluded-REID: occluded bodies are the queries, whole ones the gallery.

    Cameras are not known. As is usual, queries have camera 0 and the gallery has camera 1.
    """
    root, layout = find_layout("occluded_reid", root, LAYOUTS)
    query, gallery = (path.removesuffix("/*/*_*") for path in layout.paths)
    return read_body_images("occluded_reid", _NAMING, root, query, gallery)


def read_body_images(
    name: str, naming: Naming, root: Path, query: str, gallery: str, **attributes: Any
) -> ReidSplits:
    """Read a test set from two folders below ``root``, with or without a folder for each person."""
    # Different cameras, so that the same-camera rule never removes an image.
    queries = _read_folder(naming, root, query, camid=0)
    answers = _read_folder(naming, root, gallery, camid=1)
    if missing := sorted({i.pid for i in queries} - {i.pid for i in answers}):
        raise ValueError(
            f"{root / gallery} lacks {len(missing)} people of {root / query}, such as "
            f"{missing[0]}. Is the data set complete?"
        )
    return ReidSplits.from_images(
        name, root, query=queries, gallery=answers, has_cameras=False, **attributes
    )


def _read_folder(naming: Naming, root: Path, folder: str, camid: int) -> list[ReidImage]:
    images = naming.read_folder(root, folder, camid, may_be_empty=True)
    for below in subfolders(root / folder):
        inner = f"{folder}/{below.name}"
        for image in naming.read_folder(root, inner, camid, may_be_empty=True):
            if not (below.name.isdecimal() and int(below.name) == image.pid):
                where = f"in the folder of {below.name}"
                raise ValueError(f"{root / image.path} is an image of person {image.pid} {where}")
            images.append(image)
    return naming.check_any(images, root / folder)
