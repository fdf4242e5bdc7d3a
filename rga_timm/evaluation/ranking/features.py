"""Checks at the door: what callers hand in becomes clean tensors and ids, or a clear error."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Ids = np.ndarray | Tensor | Sequence[int]


class QueryGallery(NamedTuple):
    """Queries and gallery, checked: features are tensors, ids int64 arrays."""

    query: Tensor
    query_pids: np.ndarray
    query_camids: np.ndarray
    gallery: Tensor
    gallery_pids: np.ndarray
    gallery_camids: np.ndarray


def check_query_gallery(
    query_features: np.ndarray | Tensor,
    query_pids: Ids,
    query_camids: Ids,
    gallery_features: np.ndarray | Tensor,
    gallery_pids: Ids,
    gallery_camids: Ids,
) -> QueryGallery:
    """What `evaluate` is given, checked by all of the functions below."""
    query = check_features("query", query_features)
    gallery = check_features("gallery", gallery_features)
    check_same_width(query, gallery)
    return QueryGallery(
        query,
        check_ids("query_pids", query_pids, len(query)),
        check_ids("query_camids", query_camids, len(query)),
        gallery,
        check_ids("gallery_pids", gallery_pids, len(gallery)),
        check_ids("gallery_camids", gallery_camids, len(gallery)),
    )


def check_features(name: str, features: np.ndarray | Tensor) -> Tensor:
    """Features as a tensor on the device where they lie.

    Args:
        name: how errors call them, e.g. `query`.
        features: (n, D) real numbers, array or tensor.

    Returns:
        (n, D) tensor; it shares memory with the input where it can.

    Raises:
        ValueError: not real numbers, not 2-D, empty, or with a NaN or an infinity in it.
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
    """An array as a tensor, as it lies where torch can take it so."""
    if features.dtype.kind not in "fiu":
        raise ValueError(f"{name} features must be real numbers, got {features.dtype}")
    if features.dtype.kind != "f" or features.dtype.itemsize > 8:
        features = features.astype(np.float64)  # torch knows only some of these types
    features = features.astype(features.dtype.newbyteorder("="), copy=False)
    if min(features.strides, default=0) < 0:
        features = features.copy()
    with warnings.catch_warnings():  # of arrays that may not be written to: nobody will
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(features)


def check_whole_number(name: str, value: object) -> None:
    """Raises TypeError unless it is one."""
    if not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")


def check_tile_memory(tile_memory: int) -> None:
    """Raises TypeError or ValueError unless it is a number of bytes."""
    check_whole_number("tile_memory", tile_memory)
    if tile_memory < 1:
        raise ValueError(f"tile_memory must be positive, got {tile_memory}")


def check_same_width(query: Tensor, gallery: Tensor) -> None:
    """Raises ValueError unless both sets of features, (Q, D) and (G, D), have the same D."""
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query and gallery features differ in width: {query.shape[1]} and {gallery.shape[1]}"
        )


def check_ids(name: str, ids: Ids, count: int) -> np.ndarray:
    """Person or camera ids as an int64 array.

    Args:
        name: how errors call them, e.g. `gallery_pids`.
        ids: integers, one a row of the features.
        count: the number of rows.

    Returns:
        (count,) int64.

    Raises:
        ValueError: not one integer a row.
    """
    array: np.ndarray[Any, Any] = (
        ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    )
    if array.shape != (count,):
        raise ValueError(f"{name} must have shape ({count},) as the features, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    if array.dtype.kind == "u" and (array > np.iinfo(np.int64).max).any():
        raise ValueError(f"{name} must be below 2^63, got {array.max()}")
    return array.astype(np.int64)
