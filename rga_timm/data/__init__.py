"""Data sets as readers, P×K batches, transforms and loaders. Serves any timm model."""

from . import datasets  # noqa: F401 - registers them
from .datasets.table import write_table
from .layout import Layout, find_layout
from .loader import create_eval_loader, create_train_loader
from .reader import ReidDataset, ReidImage, ReidReader
from .registry import (
    DatasetInfo,
    create_dataset,
    dataset_info,
    list_datasets,
    parse_spec,
    partition_specs,
    register_dataset,
)
from .sampler import IdentityBatchSampler
from .splits import Counts, ReidSplits
from .transforms import eval_transform, train_transform

__all__ = [
    "Counts",
    "DatasetInfo",
    "IdentityBatchSampler",
    "Layout",
    "ReidDataset",
    "ReidImage",
    "ReidReader",
    "ReidSplits",
    "create_dataset",
    "create_eval_loader",
    "create_train_loader",
    "dataset_info",
    "eval_transform",
    "find_layout",
    "list_datasets",
    "parse_spec",
    "partition_specs",
    "register_dataset",
    "train_transform",
    "write_table",
]
