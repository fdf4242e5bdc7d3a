"""Recall and speed of the search among a million embeddings, approximate against exact.

    python scripts/benchmarks/search.py                            # 1,000,000 of 512: 5 GB of disk
    python scripts/benchmarks/search.py --vectors 100000 --kinds ivf_rq ivf_pq ivf_hnsw_sq

The embeddings are drawn, clustered like identities: an image is its identity's centre plus noise of
0.6 times its size, both normal with standard deviations that fall as 1 / sqrt(dimension), so that
few directions carry most, as in learnt features; all normalised. Images of an identity then have a
cosine similarity of 0.73, others one of 0 +- 0.17. Queries are further images of identities that
are in the index. Real embeddings have other neighbours: measure on yours.

Everything happens in one run on one machine, queries one after the other: the folder of embeddings,
the index of it (build), exact search, and for each kind the approximate index and its searches, in
turns, of which the median counts. Exact search is LanceDB's; some of its results are compared with
NumPy's. Recall@k is the part of the exact first k that the approximate first k hold. Prints a
Markdown table; --output keeps everything as JSON. The files are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from rga_timm.cli.options import positive_int
from rga_timm.evaluation import StoredEmbeddings, iter_embeddings
from rga_timm.evaluation.cost import processor_name
from rga_timm.evaluation.embedding.store import write_metadata, write_shard
from rga_timm.search import REFINE_FACTOR, Kind, SearchIndex

SHARD = 8192  # images
NOISE = 0.6  # of an image, to its identity's centre
K = 10
KINDS = [kind for kind in get_args(Kind) if kind != "exact"]


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--vectors", type=positive_int, default=1_000_000, help="(default: 1000000)")
    add("--width", type=positive_int, default=512, help="(default: 512)")
    add("--per-identity", type=positive_int, default=20, help="images of each (default: 20)")
    add("--queries", type=positive_int, default=100, help="(default: 100)")
    add("--checked", type=positive_int, default=10, help="exact searches that NumPy repeats")
    add("--kinds", nargs="+", default=["ivf_rq"], choices=KINDS, help="(default: ivf_rq)")
    add("--nprobes", type=positive_int, nargs="+", default=[10, 20, 50, 100, 250])
    add("--refine-factor", type=positive_int, nargs="+", default=[REFINE_FACTOR])
    add("--rounds", type=positive_int, default=5, help="turns of each setting (default: 5)")
    add("--folder", type=Path, help="work below this one (default: the system's)")
    add("--seed", type=int, default=0)
    add("--output", type=Path, metavar="JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, and return the figures."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.vectors < args.per_identity:
        parser.error("--vectors must be at least --per-identity")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        report = measure(args, Path(folder))
    print(format_report(report))
    if args.output:
        args.output.write_text(json.dumps(report, indent=2, default=str) + "\n")
    return report


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    stored, database = folder / "embeddings", folder / "index"
    write_embeddings(args, stored)
    queries = draw_queries(args)

    build_s, index = timed(lambda: SearchIndex.build(database, stored))
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "options": vars(args),
        "build_s": build_s,
        "table_bytes": size_of(database),
    }
    exact_s, exact = timed(lambda: search(index, queries, exact=True))
    report["exact_per_second"] = len(queries) / exact_s
    report["numpy_agrees"] = agreement(stored, queries[: args.checked], exact)

    report["approximate"] = []
    for kind in args.kinds:
        before = size_of(database)
        index_s, _ = timed(lambda kind=kind: index.create_index(kind))
        about = {"kind": kind, "index_s": index_s, "index_bytes": size_of(database) - before}
        search(index, queries, nprobes=max(args.nprobes))  # reads the index into memory
        settings = [
            {"nprobes": nprobes, "refine_factor": refine_factor}
            for nprobes in args.nprobes
            for refine_factor in args.refine_factor
        ]
        seconds: list[list[float]] = [[] for _ in settings]
        found = [np.empty(0)] * len(settings)
        for _ in range(args.rounds):  # in turns: a machine that slows down slows all of them
            for number, setting in enumerate(settings):
                taken, found[number] = timed(lambda s=setting: search(index, queries, **s))
                seconds[number].append(taken)
        report["approximate"] += [
            {
                **about,
                **setting,
                "recall_1": recall(numbers, exact, 1),
                "recall_10": recall(numbers, exact, K),
                "per_second": len(queries) / median(taken),
            }
            for setting, numbers, taken in zip(settings, found, seconds, strict=True)
        ]
    return report


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that it took, and what came of it."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def search(index: SearchIndex, queries: np.ndarray, **options: Any) -> np.ndarray:
    """Numbers of the images found, (n, K)."""
    found = index.query(queries, K, progress=bool(options.get("exact")), **options)
    return np.array([[int(row["path"]) for row in rows] for rows in found])


def recall(found: np.ndarray, exact: np.ndarray, k: int) -> float:
    """Part of the exact first k that is among the first k found; the mean over queries."""
    pairs = zip(found[:, :k], exact[:, :k], strict=True)
    return float(np.mean([len(np.intersect1d(*pair)) / k for pair in pairs]))


def agreement(stored: Path, queries: np.ndarray, exact: np.ndarray) -> float:
    """Recall@K of the exact search, as NumPy sees it."""
    similarities, numbers = [], []
    for shard in iter_embeddings(stored):
        features = shard.features / np.linalg.norm(shard.features, axis=1, keepdims=True)
        similarities.append(queries @ features.T)
        numbers.append(np.array(shard.paths, dtype=np.int64))
    order = np.argsort(-np.concatenate(similarities, axis=1), axis=1)[:, :K]
    return recall(np.concatenate(numbers)[order], exact[: len(queries)], K)


def draw(args: argparse.Namespace, identities: np.ndarray, part: int) -> np.ndarray:
    """Normalised embeddings, (n, width) float32, of images of these identities."""
    scale = 1 / np.sqrt(1 + np.arange(args.width, dtype=np.float32))
    shown, which = np.unique(identities, return_inverse=True)
    centres = np.stack([normal([args.seed, 0, pid], args.width) for pid in shown])
    noise = normal([args.seed, 1, part], (len(identities), args.width))
    features = scale * (centres[which] + NOISE * noise)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def normal(seed: list[int], shape: Any) -> np.ndarray:
    """Normal random numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def draw_queries(args: argparse.Namespace) -> np.ndarray:
    """Further images of random identities, (n, width)."""
    rng = np.random.default_rng([args.seed, 2])
    identities = rng.integers(0, args.vectors // args.per_identity, args.queries)
    return draw(args, identities, part=args.vectors)


def write_embeddings(args: argparse.Namespace, folder: Path) -> None:
    """A folder of embeddings, drawn a shard at a time."""
    metadata = write_metadata(
        folder,
        {
            **dict.fromkeys(("img_size", "interpolation", "mean", "std", "amp_dtype")),
            "model": "drawn",
            "weights_sha256": None,
            "feature": "embedding",
            "flip": False,
            "scales": [1.0],
            "splits": [""],
            "fingerprint": None,
            "count": args.vectors,
            "width": args.width,
            "shard_format": "parquet",
            "shard_size": SHARD,
        },
    )
    for number, start in enumerate(tqdm(range(0, args.vectors, SHARD), desc="draw", unit="shard")):
        images = np.arange(start, min(start + SHARD, args.vectors))
        identities = images // args.per_identity
        shard = StoredEmbeddings(
            draw(args, identities, part=start),
            paths=[str(image) for image in images],
            splits=[""] * len(images),
            pids=identities,
            camids=images % 6,
            tracklets=np.full(len(images), -1),
        )
        write_shard(folder, metadata, number, shard)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in files_below(folder))


def files_below(folder: Path) -> Iterator[Path]:
    """All files."""
    return (path for path in folder.rglob("*") if path.is_file())


def describe_machine() -> dict[str, str]:
    """What the figures were measured on."""
    packages = ("lancedb", "pyarrow", "numpy")
    about = {"processor": processor_name(), "cpus": str(os.cpu_count())}
    return about | {name: version(name) for name in packages}


def format_report(report: dict[str, Any]) -> str:
    """A Markdown table, with what it is about."""
    options, machine = report["options"], report["machine"]
    lines = [
        f"{options['vectors']:,} embeddings of width {options['width']}, {options['queries']} "
        f"queries one after the other; {machine['cpus']} CPUs, {machine['processor']}; LanceDB "
        f"{machine['lancedb']}.",
        "",
        f"Build: {report['build_s']:.0f} s, {report['table_bytes'] / 1e6:,.0f} MB. "
        f"NumPy finds {report['numpy_agrees']:.1%} of what the exact search finds.",
        "",
        "| search | index made in (s) | index (MB) | nprobes | refine | recall@1 | recall@10 "
        "| queries/s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| exact | | | | | 1 | 1 | {report['exact_per_second']:.2f} |",
    ]
    lines += [
        f"| `{row['kind']}` | {row['index_s']:.0f} | {row['index_bytes'] / 1e6:,.0f} | "
        f"{row['nprobes']} | {row['refine_factor']} | {row['recall_1']:.3f} | "
        f"{row['recall_10']:.3f} | {row['per_second']:.0f} |"
        for row in report["approximate"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
