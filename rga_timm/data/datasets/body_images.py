"""The reader of Occluded-REID and Partial-REID: folders of body images, without cameras."""

from pathlib import Path
from typing import Any

from ..layout import subfolders
from ..naming import Naming
from ..reader import ReidImage
from ..splits import ReidSplits

# Cameras are not known. As is usual, the queries get one camera and the gallery another, so that
# the same-camera rule never removes an image.
QUERY_CAMERA, GALLERY_CAMERA = 0, 1
NAME = r"(?P<pid>\d+)_\d+\.(jpe?g|png|tiff?|bmp)"


def read_body_images(
    name: str, naming: Naming, root: Path, query: str, gallery: str, **attributes: Any
) -> ReidSplits:
    """Read a test set from two folders below ``root``, with or without a folder for each person."""
    queries = _read_folder(naming, root, query, QUERY_CAMERA)
    answers = _read_folder(naming, root, gallery, GALLERY_CAMERA)
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
