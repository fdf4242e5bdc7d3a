"""What Occluded-REID and Partial-REID have in common: folders of body images, no cameras."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..layout import subfolders
from ..naming import Naming
from ..reader import ReidImage
from ..splits import ReidSplits

# Which camera took an image is not known. The field gives the queries one camera and the gallery
# another, so that the rule about the same camera never leaves anything out.
QUERY_CAMERA, GALLERY_CAMERA = 0, 1


@dataclass(frozen=True)
class BodyImages:
    """A data set to test on, of a folder of queries and one of whole bodies.

    Images are in the folder itself or in a folder for each person.
    """

    name: str
    title: str
    example: str

    def read(self, root: Path, query: str, gallery: str, **attributes: Any) -> ReidSplits:
        """Read the folders ``query`` and ``gallery`` below ``root``.

        Raises:
            FileNotFoundError: A folder is not there, or empty.
            ValueError: A name is of another form, a folder's number is not that of the images in
                it, or a query's person is not in the gallery.
        """
        queries = self._read_folder(root, query, QUERY_CAMERA)
        answers = self._read_folder(root, gallery, GALLERY_CAMERA)
        if missing := sorted({i.pid for i in queries} - {i.pid for i in answers}):
            raise ValueError(
                f"{root / gallery} lacks {len(missing)} people of {root / query}, such as "
                f"{missing[0]}. Is the data set complete?"
            )
        return ReidSplits.from_images(
            self.name, root, query=queries, gallery=answers, has_cameras=False, **attributes
        )

    def _read_folder(self, root: Path, folder: str, camid: int) -> list[ReidImage]:
        pattern = r"(?P<pid>\d+)_\d+\.(jpe?g|png|tiff?|bmp)"
        naming = Naming(self.title, pattern, self.example)
        images = naming.read_folder(root, folder, camid, may_be_empty=True)
        for below in subfolders(root / folder):
            inner = f"{folder}/{below.name}"
            for image in naming.read_folder(root, inner, camid, may_be_empty=True):
                if not (below.name.isdecimal() and int(below.name) == image.pid):
                    raise ValueError(
                        f"{root / image.path} is an image of person {image.pid} in the folder of "
                        f"{below.name}"
                    )
                images.append(image)
        return naming.check_any(images, root / folder)
