"""Recall and speed of the search among a million embeddings, approximate against exact.

    python scripts/benchmarks/search.py                            # 1,000,000 of 512: 5 GB of disk
    python scripts/benchmarks/search.py --vectors 100000 --kinds ivf_rq ivf_pq ivf_hnsw_sq

The embeddings are drawn, clustered like identities, 20 images each: an image is its identity's
centre plus noise of 0.6 times its size, both normal with standard deviations that fall as
1 / sqrt(dimension), so that few directions carry most, as in learnt features; all normalised.
Images of an identity then have a cosine similarity of 0.73, others one of 0 +- 0.17. Queries are
further images of identities in the index, one after the other. Recall@k is the part of the exact
first k that the approximate first k hold. Real embeddings have other neighbours: measure on yours.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rga_timm.evaluation import StoredEmbeddings
from rga_timm.evaluation.embedding.store import DECISIVE, shard_images, write_shard, write_stamp
from rga_timm.search import SearchIndex

PER_IDENTITY, NOISE = 20, 0.6


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print a Markdown table, and return its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=1_000_000, help="(default: 1000000)")
    parser.add_argument("--width", type=int, default=512, help="(default: 512)")
    parser.add_argument("--queries", type=int, default=100, help="(default: 100)")
    parser.add_argument("--kinds", nargs="+", default=["ivf_rq"], help="(default: ivf_rq)")
    parser.add_argument("--nprobes", type=int, nargs="+", default=[10, 20, 50, 100, 250])
    parser.add_argument("--folder", help="work below this one (default: the system's)")
    args = parser.parse_args(argv)
    print("| search | made in (s) | nprobes | recall@1 | recall@10 | queries/s |\n|" + 6 * " --- |")
    rows: list[dict[str, Any]] = []
    exact: list[list[int]] = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_embeddings(Path(folder, "stored"), args.vectors, args.width)
        people = np.random.default_rng(0).integers(0, args.vectors // PER_IDENTITY, args.queries)
        queries = draw(people, args.width, seed=args.vectors)
        made_s, index = timed(lambda: SearchIndex.build(f"{folder}/db", f"{folder}/stored"))
        for kind in ("exact", *args.kinds):
            if kind != "exact":
                made_s, _ = timed(lambda kind=kind: index.create_index(kind))
                index.query(queries, nprobes=max(args.nprobes))  # reads the index into memory
            for nprobes in args.nprobes if kind != "exact" else [1]:
                seconds, hits = timed(lambda n=nprobes: index.query(queries, nprobes=n))
                found = [[int(row["path"]) for row in of_query] for of_query in hits]
                exact = exact or found
                recalls = [recall(found, exact, k) for k in (1, 10)]
                row = (kind, made_s, nprobes, *recalls, args.queries / seconds)
                names = ("kind", "made_s", "nprobes", "recall_1", "recall_10", "per_second")
                rows.append(dict(zip(names, row, strict=True)))
                print("| {} | {:.0f} | {} | {:.3f} | {:.3f} | {:.2f} |".format(*row))
    return rows


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that it took, and what came of it."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def recall(found: Sequence[Sequence[int]], exact: Sequence[Sequence[int]], k: int) -> float:
    """Part of the exact first k that is among the first k found; the mean over queries."""
    pairs = zip(found, exact, strict=True)
    return float(np.mean([len({*a[:k]} & {*b[:k]}) / k for a, b in pairs]))


def draw(people: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Normalised embeddings, (n, width) float32, of images of these people."""

    def normal(seed: list[int], *shape: int) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)

    shown, which = np.unique(people, return_inverse=True)
    centres = np.stack([normal([0, person], width) for person in shown])
    features = centres[which] + NOISE * normal([1, seed], len(people), width)
    features /= np.sqrt(1 + np.arange(width, dtype=np.float32))
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def write_embeddings(folder: Path, count: int, width: int) -> None:
    """A folder of stored embeddings, drawn a shard at a time; paths are their numbers."""
    made = {"shard_format": "parquet", "shard_size": 8192, "count": count, "width": width}
    stamp = write_stamp(folder, {**dict.fromkeys(DECISIVE[1:]), **made})
    for number in range(-(-count // 8192)):
        images = np.array(shard_images(stamp, number))
        n, people = len(images), images // PER_IDENTITY
        ids = {"pids": people, "camids": images % 6, "tracklets": np.full(n, -1)}
        paths = [str(image) for image in images]
        features = draw(people, width, seed=number)
        write_shard(folder, stamp, number, StoredEmbeddings(features, paths, [""] * n, **ids))


if __name__ == "__main__":
    main()
