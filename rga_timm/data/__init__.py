"""Data sets as readers, P×K batches, transforms and loaders. Serves any timm model."""

from . import datasets  # noqa: F401 - registers them
from .cache import ImageCache
from .cached_loader import CachedTrainLoader, create_cached_train_loader
from .checks import find_bad_images, skip_bad_images
from .datasets.table import write_table
from .image import UnreadableImageError, load_image
from .joined import JoinedReader, join_train
from .layout import Layout, find_layout
from .loader import create_eval_loader, create_train_loader
from .plain_folder import read_images
from .reader import ReidDataset, ReidImage, ReidReader
from .registry import DatasetInfo, dataset_info, list_datasets, register_dataset
from .sampler import IdentityBatchSampler
from .specs import create_dataset, parse_spec, partition_specs
from .splits import Counts, ReidSplits
from .transforms import Augmentation, TrainTransform, eval_transform, train_transform

__all__ = [
    "Augmentation",
    "CachedTrainLoader",
    "Counts",
    "DatasetInfo",
    "IdentityBatchSampler",
    "ImageCache",
    "JoinedReader",
    "Layout",
    "ReidDataset",
    "ReidImage",
    "ReidReader",
    "ReidSplits",
    "TrainTransform",
    "UnreadableImageError",
    "create_cached_train_loader",
    "create_dataset",
    "create_eval_loader",
    "create_train_loader",
    "dataset_info",
    "eval_transform",
    "find_bad_images",
    "find_layout",
    "join_train",
    "list_datasets",
    "load_image",
    "parse_spec",
    "partition_specs",
    "read_images",
    "register_dataset",
    "skip_bad_images",
    "train_transform",
    "write_table",
]
