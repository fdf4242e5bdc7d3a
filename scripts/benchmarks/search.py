"""Recall and speed of the search among a million embeddings, approximate against exact.

    python scripts/benchmarks/search.py                            # 1,000,000 of 512: 5 GB of disk
    python scripts/benchmarks/search.py --vectors 100000 --kinds ivf_rq ivf_pq ivf_hnsw_sq

Embeddings are drawn, clustered like identities of 20 images: the identity's centre plus noise of
0.6 times its size, both normal with standard deviations that fall as 1 / sqrt(dimension), as in
learnt features; all normalised. Images of an identity then have a cosine similarity of 0.73, others
one of 0 +- 0.17. Queries are further images of the identities. Recall@k is the part of the exact
first k that the approximate first k hold. Real embeddings have other neighbours: measure on yours.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rga_timm.evaluation import StoredEmbeddings
from rga_timm.evaluation.embedding.store import DECISIVE, shard_images, write_shard, write_stamp
from rga_timm.search import SearchIndex

PER_IDENTITY, NOISE, QUERIES, SHARD = 20, 0.6, 100, 8192


def main(argv: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
    """Measure, print a Markdown table, and return its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=1_000_000, help="(default: 1000000)")
    parser.add_argument("--width", type=int, default=512, help="(default: 512)")
    parser.add_argument("--kinds", nargs="+", default=["ivf_rq"], help="(default: ivf_rq)")
    parser.add_argument("--nprobes", type=int, nargs="+", default=[10, 20, 50, 100, 250])
    args = parser.parse_args(argv)
    people = np.random.default_rng(0).integers(0, args.vectors // PER_IDENTITY, QUERIES)
    queries = draw(people, args.width, seed=args.vectors)
    rows: list[tuple[Any, ...]] = []
    exact: list[list[str]] = []
    print("| search | made in (s) | nprobes | recall@1 | recall@10 | queries/s |\n|" + 6 * " --- |")
    with tempfile.TemporaryDirectory() as folder:
        write_embeddings(Path(folder, "stored"), args.vectors, args.width)
        start = time.perf_counter()
        index = SearchIndex.build(f"{folder}/index", f"{folder}/stored")
        for kind in ("exact", *args.kinds):
            index.create_index(kind)
            made_s = time.perf_counter() - start
            index.query(queries[:10], nprobes=max(args.nprobes))  # reads the index into memory
            for nprobes in args.nprobes if kind != "exact" else [1]:
                start = time.perf_counter()
                hits = index.query(queries, nprobes=nprobes)
                rate = QUERIES / (time.perf_counter() - start)
                found = [[row["path"] for row in of_query] for of_query in hits]
                exact = exact or found
                recalls = [recall(found, exact, k) for k in (1, 10)]
                rows.append((kind, made_s, nprobes, *recalls, rate))
                print("| {} | {:.0f} | {} | {:.3f} | {:.3f} | {:.2f} |".format(*rows[-1]))
            start = time.perf_counter()
    return rows


def recall(found: list[list[Any]], exact: list[list[Any]], k: int) -> float:
    """Part of the exact first k that is among the first k found; the mean over queries."""
    return float(np.mean([len({*a[:k]} & {*b[:k]}) / k for a, b in zip(found, exact, strict=True)]))


def draw(people: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Normalised embeddings, (n, width) float32, of images of these people."""
    rng, numbers = np.random.default_rng, {"dtype": np.float32}
    shown, which = np.unique(people, return_inverse=True)
    centres = np.stack([rng([0, 0, p]).standard_normal(width, **numbers) for p in shown])
    noise = rng([0, 1, seed]).standard_normal((len(people), width), **numbers)
    features = (centres[which] + NOISE * noise) / np.sqrt(1 + np.arange(width))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def write_embeddings(folder: Path, count: int, width: int) -> None:
    """A folder of stored embeddings, drawn a shard at a time."""
    made = {"shard_format": "parquet", "shard_size": SHARD, "count": count, "width": width}
    stamp = write_stamp(folder, {**dict.fromkeys(DECISIVE[1:]), **made})
    for number in range(-(-count // SHARD)):
        images = np.array(shard_images(stamp, number))
        features = draw(images // PER_IDENTITY, width, seed=number)
        names, ids = [str(image) for image in images], (images // PER_IDENTITY, images % 6, images)
        write_shard(folder, stamp, number, StoredEmbeddings(features, names, names, *ids))


if __name__ == "__main__":
    main()
