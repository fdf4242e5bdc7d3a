"""What can be wrong with a data set on disk, found before it costs a training run."""

from .decode import ImageFacts, find_bad_images, inspect_images, skip_bad_images
from .finding import Finding, Level, verdict
from .identify import Identification, identify
from .images import check_images
from .people import check_counts, check_people, format_counts

__all__ = [
    "Finding",
    "Identification",
    "ImageFacts",
    "Level",
    "check_counts",
    "check_images",
    "check_people",
    "find_bad_images",
    "format_counts",
    "identify",
    "inspect_images",
    "skip_bad_images",
    "verdict",
]
