"""Partial-REID (Zheng et al., "Partial Person Re-Identification", ICCV 2015).

60 people: each has 5 images of a part of the body, 5 of the occluded and 5 of the whole body. There
is no training set; papers train on Market-1501.
"""

from pathlib import Path
from typing import Literal

from ..layout import Layout, find_layout
from ..naming import Naming
from ..registry import register_dataset
from ..splits import Counts, ReidSplits
from .occluded_reid import NAME, read_body_images

_NAMING = Naming("Partial-REID", NAME, "001_001.jpg (PERSON_NUMBER.jpg)")

LAYOUT = Layout("the archive's own", ("partial_body_images", "whole_body_images"))

_PUBLISHED = {"query": Counts(300, 60), "gallery": Counts(300, 60)}


@register_dataset("partial_reid", title="Partial-REID", layouts=[LAYOUT], published=_PUBLISHED)
def partial_reid(
    root: Path | None, *, query: Literal["partial", "occluded"] = "partial"
) -> ReidSplits:
    """Partial-REID: partial (or occluded) bodies are the queries, whole ones the gallery.

    Cameras are not known. As is usual, queries have camera 0 and the gallery has camera 1.

    Args:
        root: The data set's folder, or one around it.
        query: Most papers use ``partial``; ``occluded`` reads the images in
            ``occluded_body_images``.
    """
    root, _ = find_layout("partial_reid", root, [LAYOUT])
    published = _PUBLISHED if query == "partial" else {"gallery": _PUBLISHED["gallery"]}
    folders = (f"{query}_body_images", "whole_body_images")
    return read_body_images("partial_reid", _NAMING, root, *folders, published=published)
