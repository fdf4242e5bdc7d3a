"""Image files whose names give the person and the camera."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .layout import file_names, listing
from .reader import ReidImage


@dataclass(frozen=True)
class Naming:
    """How a data set names its image files."""

    title: str  # of the data set
    # Regular expression for a whole name, ignoring case, with a group pid and perhaps camid.
    pattern: str
    example: str  # a name, with what its parts mean
    junk_pid: int | None = None  # images of this person are left out

    def match(self, folder: Path, name: str) -> re.Match[str]:
        """Match the name of a file in a folder, or raise a ValueError."""
        match = re.fullmatch(self.pattern, name, re.ASCII | re.IGNORECASE)
        if match is None:
            text = f"{folder / name} is not named as in {self.title}, where names are like"
            raise ValueError(f"{text} {self.example}. Is it of another data set?")
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
        """List the images directly in ``root / folder``, in the order of their names.

        The camera is ``camid``, or what ``camid`` returns for the match of a name, or by default
        the name's group ``camid``. Only files whose names start with ``prefix`` count. A name that
        does not match is a ValueError; no images are a FileNotFoundError, unless they may be.
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
        """Return the images, or raise a FileNotFoundError if there are none."""
        if not images:
            text = f"{folder} holds no images of {self.title}. Expected files such as"
            raise FileNotFoundError(f"{text} {self.example}, found {listing(folder)}")
        return images
