"""Occluded-REID (Zhuo et al., "Occluded Person Re-identification", ICME 2018).

200 people, taken with mobile cameras: 5 images of the occluded body and 5 of the whole one each.
There is nothing to train on; papers train on Market-1501.
"""

from pathlib import Path

from ..layout import Layout, find_layout
from ..registry import register_dataset
from ..splits import Counts, ReidSplits
from .body_images import read_body_images

_EXAMPLE = "001/001_01.tif (PERSON/PERSON_NUMBER.tif)"

# A folder for each person tells it from Partial-REID, which has folders of the same names.
_ARCHIVE = Layout("the archive's own", ("occluded_body_images/*/*_*", "whole_body_images/*/*_*"))
_FASTREID = Layout("fast-reid's", ("OccludedREID/query", "OccludedREID/gallery"))
LAYOUTS = [_ARCHIVE, _FASTREID]
_FOLDERS = {
    _ARCHIVE: ("occluded_body_images", "whole_body_images"),
    _FASTREID: ("OccludedREID/query", "OccludedREID/gallery"),
}

_PUBLISHED = {"query": Counts(1000, 200), "gallery": Counts(1000, 200)}


@register_dataset("occluded_reid", title="Occluded-REID", layouts=LAYOUTS, published=_PUBLISHED)
def occluded_reid(root: Path | None) -> ReidSplits:
    """Occluded-REID: the occluded ask, the whole ones answer.

    Cameras are not known. As is usual, queries have camera 0 and the gallery has camera 1.

    Args:
        root: The folder with ``occluded_body_images`` and ``whole_body_images``, or a folder
            around it.

    Raises:
        FileNotFoundError: The layout is another one, or a folder is empty.
        ValueError: A name is of another form, or somebody is not in the gallery.
    """
    root, layout = find_layout("occluded_reid", root, LAYOUTS)
    return read_body_images(
        "occluded_reid", root, *_FOLDERS[layout], example=_EXAMPLE, title="Occluded-REID"
    )
