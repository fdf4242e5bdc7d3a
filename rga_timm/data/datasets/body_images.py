"""What Occluded-REID and Partial-REID have in common: folders of body images, no cameras."""

import re
from pathlib import Path
from typing import Any

from ..layout import file_names, listing, match_names, subfolders
from ..reader import ReidImage
from ..splits import ReidSplits

# Which camera took an image is not known. The field gives the queries one camera and the gallery
# another, so that the rule about the same camera never leaves anything out.
QUERY_CAMERA, GALLERY_CAMERA = 0, 1

_NAME = re.compile(r"(?P<pid>\d+)_\d+\.(jpe?g|png|tiff?|bmp)", re.IGNORECASE)


def read_body_images(
    name: str, root: Path, query: str, gallery: str, *, example: str, title: str, **attributes: Any
) -> ReidSplits:
    """Read a data set to test on, from a folder of queries and one of whole bodies.

    Images lie in the folder itself or in a folder for each person.

    Args:
        name: Of the data set, as registered.
        root: Of the layout.
        query: Folder of the queries below ``root``.
        gallery: Folder of the gallery below ``root``.
        example: A file's name.
        title: Of the data set.
        attributes: Of `ReidSplits`.

    Raises:
        FileNotFoundError: A folder is not there, or empty.
        ValueError: A name is of another form, a folder's number is not that of the images in it, or
            somebody is looked for who is not in the gallery.
    """
    asked = _read_folder(root, query, QUERY_CAMERA, example, title)
    sought = _read_folder(root, gallery, GALLERY_CAMERA, example, title)
    if missing := sorted({image.pid for image in asked} - {image.pid for image in sought}):
        raise ValueError(
            f"{root / gallery} lacks {len(missing)} people of {root / query}, such as "
            f"{missing[0]}. Is the data set complete?"
        )
    return ReidSplits.from_images(
        name, root, query=asked, gallery=sought, has_cameras=False, **attributes
    )


def _read_folder(root: Path, folder: str, camid: int, example: str, title: str) -> list[ReidImage]:
    images = _images(root, folder, camid, example, title)
    for below in subfolders(root / folder):
        found = _images(root, f"{folder}/{below.name}", camid, example, title)
        if stray := [image for image in found if not _is_number(below.name, image.pid)]:
            raise ValueError(
                f"{root / stray[0].path} is an image of person {stray[0].pid} in the folder of "
                f"{below.name}"
            )
        images += found
    if not images:
        raise FileNotFoundError(
            f"{root / folder} holds no images. Expected files such as {example}, "
            f"found {listing(root / folder)}"
        )
    return images


def _images(root: Path, folder: str, camid: int, example: str, title: str) -> list[ReidImage]:
    names = file_names(root / folder)
    return [
        ReidImage(f"{folder}/{name}", int(match["pid"]), camid)
        for name, match in match_names(root / folder, names, _NAME, example, title)
    ]


def _is_number(text: str, number: int) -> bool:
    return text.isdecimal() and int(text) == number
