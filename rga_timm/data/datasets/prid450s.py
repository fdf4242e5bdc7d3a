"""PRID 450S (Roth et al., "Mahalanobis Distance Learning for Person Re-Identification", 2014).

450 people, an image from each of two cameras. Ten random halves: 225 people to train on, 225 to
test on, with camera a as the queries.
"""

from pathlib import Path

from ..layout import Layout
from ..naming import Naming
from ..partition import PARTITIONS
from ..registry import register_dataset
from ..splits import ReidSplits
from .single_shot import half_counts, read_halves

# Masks of the silhouette and the body's parts are beside the images, under other names.
_PREFIX = "img_"
_NAMING = Naming("PRID 450S", r"img_(?P<pid>\d+)\.(png|bmp|jpe?g)", "img_001.png (img_PERSON.png)")
LAYOUT = Layout("the archive's own", ("cam_a/img_*", "cam_b/img_*"))

_PUBLISHED = half_counts(225)


@register_dataset(
    "prid450s", title="PRID 450S", layouts=[LAYOUT], published=_PUBLISHED, partitions=PARTITIONS
)
def prid450s(root: Path | None, *, split: int = 0, partitions: str | None = None) -> ReidSplits:
    """One of ten halves of PRID 450S.

    Args:
        root: The folder with ``cam_a`` and ``cam_b``, or a folder around it. In these, files that
            are not called ``img_…`` are ignored.
        split: Number of the partition, 0 to 9.
        partitions: JSON file with ten partitions, a list of ``{"train": [pids], "test": [pids]}``;
            a relative path starts from the folder of the data set or the one above. Without it they
            are drawn, always the same ones, even if such a file is there.
    """
    return read_halves(
        "prid450s", root, LAYOUT, _NAMING, split=split, partitions=partitions, prefix=_PREFIX
    )
