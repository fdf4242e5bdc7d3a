"""Image files whose names say who is in them, and before which camera."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .layout import file_names, listing
from .reader import ReidImage


@dataclass(frozen=True)
class Naming:
    """How a data set names its image files.

    Attributes:
        title: Of the data set.
        pattern: A regular expression for a whole name, whatever its case, with a group ``pid``,
            and ``camid`` where the name tells the camera.
        example: A name, with what its parts mean.
        junk_pid: Images of this person are left out.
    """

    title: str
    pattern: str
    example: str
    junk_pid: int | None = None

    def match(self, folder: Path, name: str) -> re.Match[str]:
        """The match of a name in a folder.

        Raises:
            ValueError: The name is of another form.
        """
        match = re.fullmatch(self.pattern, name, re.ASCII | re.IGNORECASE)
        if match is None:
            raise ValueError(
                f"{folder / name} is not named as in {self.title}, where names are like "
                f"{self.example}. Is this another data set, or a file that does not belong there?"
            )
        return match

    def read_folder(
        self,
        root: Path,
        folder: str,
        camid: int | Callable[[re.Match[str]], int] | None = None,
        *,
        prefix: str = "",
        may_be_empty: bool = False,
    ) -> list[ReidImage]:
        """The images right in a folder, in the order of their names.

        Args:
            root: That the paths of the images start from.
            folder: Below ``root``.
            camid: Camera of all images, or from the match of a name to its camera; by default the
                name's group ``camid``.
            prefix: Files whose names start otherwise are ignored.
            may_be_empty: Whether there may be no images.

        Raises:
            FileNotFoundError: There are no images.
            ValueError: A name is of another form.
        """
        images = []
        for name in file_names(root / folder):
            if name.startswith(prefix):
                match = self.match(root / folder, name)
                camera = int(match["camid"]) if camid is None else camid
                number = camera(match) if callable(camera) else camera
                images.append(ReidImage(f"{folder}/{name}", int(match["pid"]), number))
        images = [image for image in images if image.pid != self.junk_pid]
        return images if may_be_empty else self.check_any(images, root / folder)

    def check_any(self, images: list[ReidImage], folder: Path) -> list[ReidImage]:
        """The images; a FileNotFoundError if there are none."""
        if not images:
            raise FileNotFoundError(
                f"{folder} holds no images of {self.title}. Expected files such as {self.example}, "
                f"found {listing(folder)}"
            )
        return images
