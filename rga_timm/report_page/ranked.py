"""Nearest images, histograms of distances, and rank-1 by camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rga_timm.evaluation import Embeddings

_TILE = 256  # queries whose distances are held at a time


@dataclass(frozen=True)
class Ranked:
    """The nearest gallery images of Q queries, and statistics of all pairs."""

    nearest: np.ndarray  # (Q, K) int64 indices into the gallery, the nearest first; -1 for none
    distances: np.ndarray  # (Q, K) float32 to them
    edges: np.ndarray  # (bins + 1,) of the histograms
    same: np.ndarray  # (bins,) number of pairs of one person at such a distance
    different: np.ndarray  # (bins,) number of pairs of two people
    camera_ids: list[int]  # sorted
    # (cameras, cameras): queries of a camera (row) with an image of their person under another
    # (column), and those with such an image nearer than all others under that camera.
    camera_queries: np.ndarray
    camera_hits: np.ndarray


def rank_all(
    query: Embeddings, gallery: Embeddings, *, metric: str = "cosine", top: int = 10, bins: int = 80
) -> Ranked:
    """Compare all queries with the gallery, and keep the `top` nearest images of each.

    Gallery images of the query's person under the query's camera are left out, as in the scores.
    """
    q, g = query.features.float(), gallery.features.float()
    if metric == "cosine":
        q, g = F.normalize(q, dim=1), F.normalize(g, dim=1)
    top = min(top, len(g))
    pids, camids = (torch.as_tensor(a) for a in (gallery.pids, gallery.camids))
    cameras = sorted({*query.camids.tolist(), *gallery.camids.tolist()})
    under = {camera: torch.nonzero(camids == camera).flatten() for camera in cameras}
    furthest = 2.0 if metric == "cosine" else float(q.norm(dim=1).max() + g.norm(dim=1).max())
    histograms = torch.zeros(2, bins, dtype=torch.float64)
    counts = np.zeros((2, len(cameras), len(cameras)), dtype=np.int64)
    nearest, distances = [], []
    for start in range(0, len(q), _TILE):
        own_pids = torch.as_tensor(query.pids[start : start + _TILE])[:, None]
        own_camids = torch.as_tensor(query.camids[start : start + _TILE])[:, None]
        tile = q[start : start + _TILE]
        d = (1 - tile @ g.T).clamp_(0, 2) if metric == "cosine" else torch.cdist(tile, g)  # (T, G)
        same = own_pids == pids
        left_out = same & (own_camids == camids)
        for row, mask in enumerate((same & ~left_out, ~same)):
            histograms[row] += torch.histc(d[mask], bins, 0, furthest).double()
        d = d.masked_fill(left_out, torch.inf)
        found = d.topk(top, dim=1, largest=False)
        nearest.append(found.indices.masked_fill(found.values.isinf(), -1))
        distances.append(found.values)
        _count_cameras(counts, under, d, same & ~left_out, own_camids.flatten())
    return Ranked(
        torch.cat(nearest).numpy(),
        torch.cat(distances).numpy(),
        np.linspace(0, furthest, bins + 1),
        histograms[0].numpy(),
        histograms[1].numpy(),
        cameras,
        counts[0],
        counts[1],
    )


def _count_cameras(
    counts: np.ndarray, under: dict[int, Tensor], d: Tensor, right: Tensor, own_camids: Tensor
) -> None:
    """Add a tile of queries to (queries, hits), each (cameras, cameras)."""
    for column, images in enumerate(under.values()):
        if not len(images):
            continue
        right_here = right[:, images]
        there = right_here.any(dim=1)
        # Not argmin, which among equals depends on the order of the gallery.
        others = d[:, images].masked_fill(right_here, torch.inf).amin(dim=1)
        hit = d[:, images].masked_fill(~right_here, torch.inf).amin(dim=1) < others
        for row, own in enumerate(under):
            mine = (own_camids == own) & there
            counts[0, row, column] += int(mine.sum())
            counts[1, row, column] += int((mine & hit).sum())
