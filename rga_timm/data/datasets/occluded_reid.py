"""Occluded-REID (Zhuo et al., "Occluded Person Re-identification", ICME 2018).

200 people, taken with mobile cameras: 5 images of the occluded body and 5 of the whole one each.
There is nothing to train on; papers train on Market-1501.
"""

from pathlib import Path

from ..layout import Layout, find_layout
from ..registry import register_dataset
from ..splits import Counts, ReidSplits
from .body_images import BodyImages

_IMAGES = BodyImages("occluded_reid", "Occluded-REID", "001/001_01.tif (PERSON/PERSON_NUMBER.tif)")

# A folder for each person tells it from Partial-REID, which has folders of the same names.
_ARCHIVE = Layout("the archive's own", ("occluded_body_images/*/*_*", "whole_body_images/*/*_*"))
_FASTREID = Layout("fast-reid's", ("OccludedREID/query", "OccludedREID/gallery"))
LAYOUTS = [_ARCHIVE, _FASTREID]

_PUBLISHED = {"query": Counts(1000, 200), "gallery": Counts(1000, 200)}


@register_dataset("occluded_reid", title="Occluded-REID", layouts=LAYOUTS, published=_PUBLISHED)
def occluded_reid(root: Path | None) -> ReidSplits:
    """Occluded-REID: occluded bodies are the queries, whole ones the gallery.

    Cameras are not known. As is usual, queries have camera 0 and the gallery has camera 1.

    Args:
        root: The folder with ``occluded_body_images`` and ``whole_body_images``, or a folder
            around it.
    """
    root, layout = find_layout("occluded_reid", root, LAYOUTS)
    if layout is _FASTREID:
        return _IMAGES.read(root, *_FASTREID.paths)
    return _IMAGES.read(root, "occluded_body_images", "whole_body_images")
