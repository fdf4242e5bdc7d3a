"""Turn features and ids of callers into checked tensors and arrays, or a clear error."""

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rga_timm.data.matches import JUNK_PID

Ids = np.ndarray | Tensor | Sequence[int]


class Images(NamedTuple):
    """Checked: (n, D) features as a tensor, (n,) person and camera ids as int64 arrays."""

    features: Tensor
    pids: np.ndarray
    camids: np.ndarray


def check_images(name: str, features: np.ndarray | Tensor, pids: Ids, camids: Ids) -> Images:
    """Check features and ids; `name` is `query` or `gallery`. A gallery's junk is left out."""
    checked = check_features(name, features)
    images = Images(
        checked,
        check_ids(f"{name}_pids", pids, len(checked)),
        check_ids(f"{name}_camids", camids, len(checked)),
    )
    junk = images.pids == JUNK_PID
    if name != "gallery" or not junk.any():
        return images
    if junk.all():
        raise ValueError(f"all {len(junk)} gallery images are of pid {JUNK_PID}, which is junk")
    kept = torch.from_numpy(~junk).to(checked.device)
    return Images(checked[kept], images.pids[~junk], images.camids[~junk])


def check_features(name: str, features: np.ndarray | Tensor) -> Tensor:
    """(n, D) features as a tensor on their own device, sharing memory with the input if possible.

    Raises:
        ValueError: Not real numbers, not 2-D, empty, or with a NaN or an infinity in it.
    """
    if isinstance(features, Tensor):
        if features.is_complex():
            raise ValueError(f"{name} features must be real numbers, got {features.dtype}")
        tensor = features.detach()
    else:
        tensor = _real_numbers(name, np.asarray(features))
    if tensor.ndim != 2:
        raise ValueError(f"{name} features must be (n, D), got shape {tuple(tensor.shape)}")
    if tensor.numel() == 0:
        raise ValueError(f"{name} features are empty: shape {tuple(tensor.shape)}")
    # In parts, without a second copy of everything.
    broken = sum(int((~torch.isfinite(part)).any(dim=1).sum()) for part in tensor.split(4096))
    if broken:
        raise ValueError(f"{broken} of {len(tensor)} rows of the {name} features are not finite")
    return tensor


def _real_numbers(name: str, features: np.ndarray) -> Tensor:
    """An array as a tensor, copied only if torch cannot share its memory."""
    if features.dtype.kind not in "fiu":
        raise ValueError(f"{name} features must be real numbers, got {features.dtype}")
    if features.dtype.kind != "f" or features.dtype.itemsize > 8:
        features = features.astype(np.float64)  # torch knows only some of these types
    features = features.astype(features.dtype.newbyteorder("="), copy=False)
    if min(features.strides, default=0) < 0:
        features = features.copy()
    with warnings.catch_warnings():  # about read-only arrays, which nothing here writes to
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(features)


def check_whole_number(name: str, value: object) -> None:
    """Raise a TypeError otherwise."""
    if not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")


def check_tile_memory(tile_memory: int) -> None:
    """Raise a TypeError or ValueError unless it is a number of bytes."""
    check_whole_number("tile_memory", tile_memory)
    if tile_memory < 1:
        raise ValueError(f"tile_memory must be positive, got {tile_memory}")


def check_both(query: np.ndarray | Tensor, gallery: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    """Check (Q, D) and (G, D) features, also that their widths are equal."""
    checked = check_features("query", query), check_features("gallery", gallery)
    check_same_width(*checked)
    return checked


def check_same_width(query: Tensor, gallery: Tensor) -> None:
    """Raise a ValueError unless (Q, D) and (G, D) features have the same D."""
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query and gallery features differ in width: {query.shape[1]} and {gallery.shape[1]}"
        )


def check_ids(name: str, ids: Ids, count: int) -> np.ndarray:
    """Return `count` person or camera ids as an int64 array, or raise a ValueError."""
    array: Any = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if array.shape != (count,):
        raise ValueError(f"{name} must have shape ({count},) as the features, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    if array.dtype.kind == "u" and (array > np.iinfo(np.int64).max).any():
        raise ValueError(f"{name} must be below 2^63, got {array.max()}")
    return array.astype(np.int64)
