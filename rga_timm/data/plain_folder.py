"""Images of a folder without persons or cameras: to embed, not to train or test on."""

from pathlib import Path

from .datasets.folder import IMAGE_EXTENSIONS, Ignored, images_below
from .layout import listing
from .reader import ReidImage, ReidReader

UNKNOWN = -1  # the person and the camera of these images


def read_images(folder: str | Path) -> ReidReader:
    """Read all images below a folder, sorted by their paths, without persons or cameras.

    Links to other folders are followed, but each folder is read once. Files that do not end like
    images are ignored, with a warning unless macOS or Windows left them behind.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    ignored = Ignored()
    paths = sorted(path.relative_to(root).as_posix() for path in images_below(root, ignored))
    ignored.log(root)
    if not paths:
        endings = ", ".join(IMAGE_EXTENSIONS)
        text = f"{root} holds no images, whose names end in {endings}"
        raise FileNotFoundError(f"{text}; found {listing(root)}")
    return ReidReader(root, (ReidImage(path, UNKNOWN, UNKNOWN) for path in paths))
