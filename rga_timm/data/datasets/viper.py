"""VIPeR, the Viewpoint Invariant Pedestrian Recognition data set.

Gray et al., "Evaluating Appearance Models for Recognition, Reacquisition, and Tracking", PETS 2007.
632 people, with one image from each of two cameras. Ten random splits in half: 316 people to train
on, 316 to test on. Queries are from camera a.
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

LAYOUT = Layout("the archive's own", ("cam_a/[0-9]*_*", "cam_b/[0-9]*_*"))


@register_dataset(
    "viper", title="VIPeR", layouts=[LAYOUT], published=half_counts(316), partitions=PARTITIONS
)
def viper(root: Path | None, *, split: int = 0, partitions: str | None = None) -> ReidSplits:
    """VIPeR. It has no official partitions: papers draw their own.

    Args:
        root: The data set's folder, or one around it.
        split: Number of the partition, 0 to 9.
        partitions: JSON file with ten partitions, such as torchreid's ``splits.json``, or a list of
            ``{"train": [pids], "test": [pids]}``. A relative path starts from the folder of the
            data set or the one above. The default is random partitions that never change. MATLAB's
            partition files differ from paper to paper and are not read.
    """
    return read_halves("viper", root, LAYOUT, _NAMING, split, partitions)
