"""What the page shows of all distances: nearest images, histograms, cameras by cameras."""

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
    """Of Q queries, the nearest gallery images and statistics of all pairs.

    Attributes:
        nearest: (Q, K) int64 places in the gallery, the nearest first; -1 where a query has fewer.
        distances: (Q, K) float32 to them.
        edges: (bins + 1,) of the histograms.
        same: (bins,) how many pairs of one person lie at such a distance.
        different: (bins,) the same of pairs of two people.
        camera_ids: The cameras, sorted.
        camera_queries: (cameras, cameras) how many queries of one camera (row) have an image of
            their person under another (column).
        camera_hits: (cameras, cameras) for how many of those the nearest image under that camera is
            one of their person.
    """

    nearest: np.ndarray
    distances: np.ndarray
    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray
    camera_ids: list[int]
    camera_queries: np.ndarray
    camera_hits: np.ndarray


def rank_all(
    query: Embeddings, gallery: Embeddings, *, metric: str = "cosine", top: int = 10, bins: int = 80
) -> Ranked:
    """Compare all queries with all of the gallery, a tile of queries at a time.

    A gallery image of the query's person under the query's camera is left out, as in the scores.
    The `top` nearest of each query are kept.
    """
    q, g = query.features.float(), gallery.features.float()
    if metric == "cosine":
        q, g = F.normalize(q, dim=1), F.normalize(g, dim=1)
    top = min(top, len(g))
    pids, camids = (torch.as_tensor(a) for a in (gallery.pids, gallery.camids))
    # Junk, which no query counts, is not in the gallery at all.
    cameras = sorted({*query.camids.tolist(), *gallery.camids.tolist()})
    under = {camera: torch.nonzero(camids == camera).flatten() for camera in cameras}
    furthest = 2.0 if metric == "cosine" else float(q.norm(dim=1).max() + g.norm(dim=1).max())
    histograms = torch.zeros(2, bins, dtype=torch.float64)
    counts = np.zeros((2, len(cameras), len(cameras)), dtype=np.int64)
    nearest, distances = [], []
    for start in range(0, len(q), _TILE):
        own_pids = torch.as_tensor(query.pids[start : start + _TILE])[:, None]
        own_camids = torch.as_tensor(query.camids[start : start + _TILE])[:, None]
        d = _distances(q[start : start + _TILE], g, metric)  # (T, G)
        same = own_pids == pids
        left_out = same & (own_camids == camids)
        for row, mask in enumerate((same & ~left_out, ~same)):
            histograms[row] += torch.histc(d[mask], bins, 0, furthest).double()
        d = d.masked_fill(left_out, torch.inf)
        found = d.topk(top, dim=1, largest=False)
        nearest.append(found.indices.masked_fill(found.values.isinf(), -1))
        distances.append(found.values)
        _count_cameras(counts, cameras, under, d, same & ~left_out, own_camids.flatten())
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


def _distances(q: Tensor, g: Tensor, metric: str) -> Tensor:
    if metric == "cosine":
        return (1 - q @ g.T).clamp_(0, 2)
    return torch.cdist(q, g)


def _count_cameras(
    counts: np.ndarray,
    cameras: list[int],
    under: dict[int, Tensor],
    d: Tensor,
    right: Tensor,
    own_camids: Tensor,
) -> None:
    """Add a tile of queries to (queries, hits), each (cameras, cameras)."""
    for column, camera in enumerate(cameras):
        if not len(under[camera]):
            continue
        right_here = right[:, under[camera]]
        there = right_here.any(dim=1)
        hit = right_here.gather(1, d[:, under[camera]].argmin(dim=1, keepdim=True)).flatten()
        for row, own in enumerate(cameras):
            mine = (own_camids == own) & there
            counts[0, row, column] += int(mine.sum())
            counts[1, row, column] += int((mine & hit).sum())
