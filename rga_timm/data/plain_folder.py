"""Images of a folder, without persons or cameras: to be embedded, not trained or tested on."""

from pathlib import Path

from .datasets.folder import IMAGE_EXTENSIONS, Ignored, images_below
from .layout import listing
from .reader import ReidImage, ReidReader

UNKNOWN = -1  # the person and the camera of an image that nothing is known of


def read_images(folder: str | Path) -> ReidReader:
    """All images below a folder, sorted by their paths, without persons or cameras.

    Args:
        folder: Links to other folders are followed. What macOS and Windows leave behind is
            ignored, and so are, with a warning, files that do not end like images.

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
        raise FileNotFoundError(
            f"{root} holds no images, whose names end in {', '.join(IMAGE_EXTENSIONS)}; found "
            f"{listing(root)}"
        )
    return ReidReader(root, (ReidImage(path, UNKNOWN, UNKNOWN) for path in paths))
