"""VIPeR, the Viewpoint Invariant Pedestrian Recognition data set.

Gray et al., "Evaluating Appearance Models for Recognition, Reacquisition, and Tracking", PETS 2007.
632 people, an image from each of two cameras. Ten random halves: 316 people to train on, 316 to
test on, with camera a as the queries.
"""

from pathlib import Path

from ..layout import Layout
from ..naming import Naming
from ..partition import PARTITIONS
from ..registry import register_dataset
from ..splits import ReidSplits
from .single_shot import half_counts, read_halves

# Person, angle of view in degrees.
_NAMING = Naming("VIPeR", r"(?P<pid>\d+)_\d+\.(bmp|png|jpe?g)", "000_45.bmp (PERSON_ANGLE.bmp)")

# torchreid and fast-reid have it so too, the former with a folder viper around it.
LAYOUT = Layout("the archive's own", ("cam_a/[0-9]*_*", "cam_b/[0-9]*_*"))

_PUBLISHED = half_counts(316)


@register_dataset(
    "viper", title="VIPeR", layouts=[LAYOUT], published=_PUBLISHED, partitions=PARTITIONS
)
def viper(root: Path | None, *, split: int = 0, partitions: str | None = None) -> ReidSplits:
    """One of ten halves of VIPeR.

    VIPeR comes without partitions, and papers drew their own, so there are no official ones.

    Args:
        root: The folder with ``cam_a`` and ``cam_b``, or a folder around it.
        split: Number of the partition, 0 to 9.
        partitions: JSON file with ten partitions, such as torchreid's ``splits.json``, or a list of
            ``{"train": [pids], "test": [pids]}``; a relative path starts from the folder of the
            data set or the one above. Without it they are drawn, always the same ones, even if such
            a file is there. MATLAB's partition files differ from paper to paper and are not read.
    """
    return read_halves("viper", root, LAYOUT, _NAMING, split=split, partitions=partitions)
