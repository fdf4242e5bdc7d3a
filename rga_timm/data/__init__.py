"""Data sets as readers, P×K batches, transforms and loaders. Serves any timm model."""

from . import market1501, pedestrians  # noqa: F401 - registers them
from .loader import create_eval_loader, create_train_loader
from .reader import ReidDataset, ReidImage, ReidReader, ReidSplits
from .registry import create_dataset, list_datasets, register_dataset
from .sampler import IdentityBatchSampler
from .transforms import eval_transform, train_transform

__all__ = [
    "IdentityBatchSampler",
    "ReidDataset",
    "ReidImage",
    "ReidReader",
    "ReidSplits",
    "create_dataset",
    "create_eval_loader",
    "create_train_loader",
    "eval_transform",
    "list_datasets",
    "register_dataset",
    "train_transform",
]
