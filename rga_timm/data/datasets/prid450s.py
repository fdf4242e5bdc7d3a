"""PRID 450S (Roth et al., "Mahalanobis Distance Learning for Person Re-Identification", 2014).

450 people, with one image from each of two cameras. Ten random splits in half: 225 people to train
on, 225 to test on. Queries are from camera a.
"""

from pathlib import Path

from ..layout import Layout
from ..naming import Naming
from ..partition import PARTITIONS
from ..registry import register_dataset
from ..splits import ReidSplits
from .single_shot import half_counts, read_halves

_NAMING = Naming("PRID 450S", r"img_(?P<pid>\d+)\.(png|bmp|jpe?g)", "img_001.png (img_PERSON.png)")
LAYOUT = Layout("the archive's own", ("cam_a/img_*", "cam_b/img_*"))

_PUBLISHED = half_counts(225)


@register_dataset(
    "prid450s", title="PRID 450S", layouts=[LAYOUT], published=_PUBLISHED, partitions=PARTITIONS
)
def prid450s(root: Path | None, *, split: int = 0, partitions: str | None = None) -> ReidSplits:
    """PRID 450S. Files that are not named ``img_…``, such as masks, are ignored.

    Args:
        root: The data set's folder, or one around it.
        split: Number of the partition, 0 to 9.
        partitions: JSON file with ten partitions, a list of ``{"train": [pids], "test": [pids]}``.
            A relative path starts from the folder of the data set or the one above. The default is
            random partitions that never change.
    """
    return read_halves("prid450s", root, LAYOUT, _NAMING, split, partitions, prefix="img_")
