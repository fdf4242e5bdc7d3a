"""Reports of random features, for tests of what is made from reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rga_timm.evaluation import ModelRecord, Protocol, Report, evaluate
from rga_timm.evaluation.reports.per_query import per_query_results

PROTOCOL = Protocol(
    img_size=(256, 128), interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)
)
DATASET = {
    "name": "tiny",
    "train": {"images": 9, "ids": 3},
    "query": {"images": 40, "ids": 10},
    "gallery": {"images": 60, "ids": 12},
    "fingerprint": "f" * 64,
    "test_fingerprint": "e" * 64,
}
PIDS = np.arange(40) % 10


def random_report(
    seed: int,
    noise: float = 1.0,
    *,
    model: str = "net",
    dataset: dict[str, Any] | None = None,
    per_query: bool = True,
    checkpoint: str | None = None,
    warnings: tuple[str, ...] = (),
    **protocol: Any,
) -> Report:
    """40 queries of 10 people; those of person 9 are not in the gallery. Less noise, more mAP."""
    of_person = np.random.default_rng(0).normal(size=(12, 8))
    rng = np.random.default_rng(seed)
    gallery_pids = np.arange(60) % 12
    gallery_pids[gallery_pids == 9] = 0
    query, gallery = (of_person[p] + noise * rng.normal(size=(len(p), 8))
                      for p in (PIDS, gallery_pids))  # fmt: skip
    result = evaluate(query, PIDS, [1] * 40, gallery, gallery_pids, [2] * 60)
    queries = {
        "path": [f"query/{i}.jpg" for i in range(40)],
        "pid": PIDS.tolist(),
        "camid": [1] * 40,
    }
    return Report.of(
        result,
        ModelRecord(model, checkpoint, f"{seed:064x}"),
        DATASET if dataset is None else dataset,
        replace(PROTOCOL, **protocol),
        query_pids=PIDS,
        per_query=per_query_results(result, queries) if per_query else None,
        warnings=list(warnings),
    )
