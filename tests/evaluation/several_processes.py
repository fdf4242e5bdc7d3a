"""What several processes compute together, for test_distributed.py to compare with one."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import distributed as dist
from torch.utils.data import DataLoader

from rga_timm.evaluation import Embeddings, embed, evaluate, verify

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "euclidean": {"metric": "euclidean"},
    "reranked": {"rerank": {"k1": 8, "k2": 3}},
    "expanded": {"expand": {"k": 3}},
    "single shot": {"single_gallery_shot": True},
}


def problem(queries: int = 33) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    q_pids, g_pids = np.arange(queries) % 12, rng.integers(0, 10, 200)  # two are nowhere
    centres = rng.normal(size=(12, 16))
    return (
        centres[q_pids] + rng.normal(size=(queries, 16)),
        q_pids,
        rng.integers(0, 3, queries),
        centres[g_pids] + rng.normal(size=(200, 16)),
        g_pids,
        rng.integers(0, 3, 200),
    )


def embed_images(distributed: bool, n: int, tracklets: bool) -> Embeddings:
    """Of n drawn images in batches of 4: this process's batches, or all."""
    rng = np.random.default_rng(n)
    images = torch.from_numpy(rng.normal(size=(n, 3, 32, 32)).astype(np.float32))
    numbers = np.arange(n) // 3  # a tracklet can lie on the border of the processes
    targets = np.stack([numbers % 5, numbers % 2, numbers][: 3 if tracklets else 2], axis=1)
    batches = [(images[i : i + 4], torch.from_numpy(targets[i : i + 4])) for i in range(0, n, 4)]
    if distributed:
        rank, world_size = dist.get_rank(), dist.get_world_size()
        half = len(batches) * rank // world_size, len(batches) * (rank + 1) // world_size
        batches = batches[slice(*half)]
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=0)
    loader = DataLoader(batches, batch_size=None)
    return embed(model, loader, distributed=distributed, progress=False)


def compute(distributed: bool) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        name: vars(evaluate(*problem(), **options, distributed=distributed))
        for name, options in OPTIONS.items()
    }
    # Fewer queries, fewer batches than processes.
    results["one query"] = vars(evaluate(*problem(1), distributed=distributed))
    verified = verify(*problem(), fprs=[0.01, 0.2], distributed=distributed)
    results["verified"] = {"points": np.array([astuple(point) for point in verified.points])}
    for n in (3, 22):
        for tracklets in (False, True):
            found = embed_images(distributed, n, tracklets)
            results[f"embedded {n} {tracklets}"] = {
                "features": found.features.numpy(),
                "pids": found.pids,
                "camids": found.camids,
            }
    return {
        f"{name}: {key}": np.asarray(value)
        for name, result in results.items()
        for key, value in result.items()
    }


def run(rank: int, world_size: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size
    )
    np.savez(folder / f"{rank}.npz", **compute(distributed=True))
    dist.destroy_process_group()
