"""Occluded-REID (Zhuo et al., "Occluded Person Re-identification", ICME 2018).

200 people, taken with mobile cameras: each has 5 images of the occluded and 5 of the whole body.
There is no training set; papers train on Market-1501.
"""

from pathlib import Path

from ..layout import Layout, find_layout
from ..naming import Naming
from ..registry import register_dataset
from ..splits import Counts, ReidSplits
from .body_images import NAME, read_body_images

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
