"""How fast, and in how much memory: ranking and re-ranking, beside the usual ways.

    python scripts/benchmarks/evaluation.py                        # Market-1501's size
    python scripts/benchmarks/evaluation.py ranking --rounds 5
    python scripts/benchmarks/evaluation.py --embeddings FOLDER    # real features, of embed.py
    python scripts/benchmarks/evaluation.py --large --rounds 1     # MSMT17's size, ours alone

ranking: `evaluate` beside argsort-based evaluation, which holds all distances and sorts them whole:
numpy's argsort, and a loop over the sorted rows that numba compiles. rerank: `evaluate` with
k-reciprocal re-ranking beside the paper's algorithm as it is usually written, with dense matrices
over all images, in numpy, with nothing slower than it has to be.
--published FILE is measured too: the authors' re_ranking_ranklist.py, or whatever else defines a
function re_ranking(q_g_dist, q_q_dist, g_g_dist).

The forms take turns, each in a process of its own, which first does a small problem; the median
round counts, and for the ratios the median of the rounds' own ratios. Memory is what the process
takes at its peak above what it had with the features loaded. The scores of all forms are compared
too, and must agree.

Without --embeddings features are drawn: identities are Gaussian clusters, wide enough to overlap.
Needs numba, of the extra `benchmark`. Prints a Markdown table; --output keeps everything as JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import resource
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from rga_timm.cli.options import positive_int
from rga_timm.evaluation import evaluate
from rga_timm.evaluation.cost import processor_name
from rga_timm.evaluation.stored import read_splits

NAMES = [f"{who}_{what}" for who in ("query", "gallery") for what in ("features", "pids", "camids")]
FORMS = {
    "ranking": {"argsort, compiled loop": "argsort", "rga_timm": "ours"},
    "rerank": {"dense numpy": "dense", "rga_timm": "ours_rerank"},
}
MARKET1501 = (3368, 15913, 1501)  # queries, gallery images, identities
MSMT17 = (11659, 82161, 3060)


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tasks",
        nargs="*",
        default=list(FORMS),
        metavar="TASK",
        help=f"{' or '.join(FORMS)} (default: both)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--embeddings", type=Path, metavar="FOLDER", help="of a data set, instead of drawn ones"
    )
    source.add_argument(
        "--sizes",
        type=positive_int,
        nargs=3,
        default=MARKET1501,
        metavar=("Q", "G", "IDS"),
        help="queries, gallery images, identities (default: Market-1501's)",
    )
    source.add_argument(
        "--large", action="store_true", help="MSMT17's size, without the other forms"
    )
    parser.add_argument(
        "--width", type=positive_int, default=512, help="numbers a feature (default: 512)"
    )
    parser.add_argument("--noise", type=float, default=2.1, help="of the drawn (default: 2.1)")
    parser.add_argument("--rounds", type=positive_int, default=3, help="(default: 3)")
    parser.add_argument(
        "--published", type=Path, metavar="FILE", help="measure this script's re-ranking too"
    )
    parser.add_argument("--threads", type=positive_int, help="(default: all)")
    parser.add_argument("--output", type=Path, metavar="JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print the table, and return its rows."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.published and not args.published.is_file():
        parser.error(f"there is no file {args.published}")
    if unknown := set(args.tasks) - set(FORMS):
        parser.error(f"a TASK is {' or '.join(FORMS)}, not {', '.join(unknown)}")
    sizes = MSMT17 if args.large else args.sizes
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = load(args.embeddings) if args.embeddings else draw(*sizes, args.width, args.noise)
        for name, values in data.items():
            np.save(Path(folder) / f"{name}.npy", values)
        del data
        for task in args.tasks:
            forms = dict(FORMS[task])
            if task == "rerank" and args.published:
                forms = {f"{args.published.name}": f"published:{args.published}", **forms}
            if args.large:
                forms = {"rga_timm": forms["rga_timm"]}
            rows += compare(task, forms, folder, args)
    print(format_table(rows))
    if args.output:
        report = {"machine": describe_machine(args), "options": vars(args), "rows": rows}
        args.output.write_text(json.dumps(report, indent=2, default=str) + "\n")
    return rows


def draw(Q: int, G: int, identities: int, width: int, noise: float) -> dict[str, np.ndarray]:
    """Features of people as clusters; half of the people are looked for, under six cameras."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((identities, width), dtype=np.float32)
    data = {}
    for who, n, people in (("query", Q, max(1, identities // 2)), ("gallery", G, identities)):
        pids = rng.integers(0, people, n)
        features = rng.standard_normal((n, width), dtype=np.float32)
        features *= noise
        features += centres[pids]
        data |= {f"{who}_features": features, f"{who}_pids": pids}
        data[f"{who}_camids"] = rng.integers(0, 6, n)
    return data


def load(folder: Path) -> dict[str, np.ndarray]:
    """Stored embeddings of a data set."""
    data = {}
    for who, found in zip(
        ("query", "gallery"), read_splits(folder, "query", "gallery"), strict=True
    ):
        data |= {f"{who}_features": found.features.numpy(), f"{who}_pids": found.pids}
        data[f"{who}_camids"] = found.camids
    return data


def compare(
    task: str, forms: dict[str, str], folder: str, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Let the forms take turns; a row each, with its ratios to the last."""
    context = multiprocessing.get_context("spawn")
    rounds: dict[str, list[dict[str, Any]]] = {form: [] for form in forms}
    for _ in range(args.rounds):
        for form, function in forms.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=measure, args=(function, folder, args.threads, theirs))
            process.start()
            theirs.close()
            try:
                rounds[form].append(ours.recv())
            except EOFError:
                raise SystemExit(f"{form} died: out of memory?") from None
            process.join()
    own = rounds[list(forms)[-1]]
    rows = []
    for form, measured in rounds.items():
        row: dict[str, Any] = {"task": task, "form": form, "shape": measured[0]["shape"]}
        for what in ("seconds", "bytes"):
            row[what] = median(m[what] for m in measured)
            row[f"{what}_ratio"] = median(
                m[what] / o[what] for m, o in zip(measured, own, strict=True)
            )
        row |= {what: measured[0][what] for what in ("mAP", "rank1")}
        if abs(row["mAP"] - own[0]["mAP"]) > 1e-4:
            raise SystemExit(f"the forms disagree: mAP {row['mAP']} and {own[0]['mAP']}")
        rows.append(row)
    return rows


def measure(function: str, folder: str, threads: int | None, to: Connection) -> None:
    """In a process of its own: warm up, run, and send time, memory and scores."""
    if threads:
        torch.set_num_threads(threads)
    run: Callable[..., tuple[float, float]] = (ours if function.startswith("ours") else baseline)(
        function
    )
    small = draw(60, 300, 20, 8, 0.3)
    run(*(small[name] for name in NAMES))
    data = [np.load(Path(folder) / f"{name}.npy") for name in NAMES]
    before = reset_peak()
    start = time.perf_counter()
    mean_ap, rank1 = run(*data)
    seconds = time.perf_counter() - start
    to.send(
        {
            "seconds": seconds,
            "bytes": peak_memory() - before,
            "mAP": mean_ap,
            "rank1": rank1,
            "shape": [len(data[0]), len(data[3]), data[0].shape[1]],
        }
    )


def ours(function: str) -> Callable[..., tuple[float, float]]:
    """`evaluate`."""

    def run(*data: np.ndarray) -> tuple[float, float]:
        result = evaluate(*data, rerank={} if function == "ours_rerank" else None)
        return result.mAP, float(result.cmc[0])

    return run


def baseline(function: str) -> Callable[..., tuple[float, float]]:
    """The usual way."""
    kind, _, file = function.partition(":")
    if kind == "published":
        return partial(evaluate_published, file)
    return {"argsort": evaluate_argsort, "dense": evaluate_dense}[kind]


def reset_peak() -> int:
    """Forget the largest memory so far; returns the present one, bytes."""
    with suppress(OSError):  # not Linux: what there was at most until now
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def peak_memory() -> int:
    """The largest resident memory of this process, bytes."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: in brackets how many times as much as ours."""
    lines = [
        "| task | queries x gallery x width | form | seconds | memory (MB) | mAP | rank-1 |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        shape = " x ".join(f"{n:,}" for n in row["shape"])
        lines.append(
            f"| {row['task']} | {shape} | {row['form']} "
            f"| {row['seconds']:.2f} ({row['seconds_ratio']:.1f}) "
            f"| {row['bytes'] / 1e6:,.0f} ({row['bytes_ratio']:.1f}) "
            f"| {100 * row['mAP']:.2f} | {100 * row['rank1']:.2f} |"
        )
    return "\n".join(lines)


def describe_machine(args: argparse.Namespace) -> dict[str, str]:
    """What the figures were measured on."""
    packages = ("numpy", "scipy", "torch", "numba", "rga-timm")
    return {
        "device": processor_name(),
        "threads": str(args.threads or torch.get_num_threads()),
        **{package: version(package) for package in packages},
    }


# The usual ways hold what they need whole, as most code for re-identification does: all distances,
# all of them sorted, matrices over all pairs of images. `data` are the six arrays of NAMES.


def evaluate_argsort(*data: np.ndarray) -> tuple[float, float]:
    """Mean AP and rank-1 of cosine distances, from all of them sorted."""
    return score(1 - unit(data[0]) @ unit(data[3]).T, data)


def evaluate_dense(*data: np.ndarray) -> tuple[float, float]:
    """Mean AP and rank-1 of cosine distances re-ranked with matrices over all pairs of images."""
    return score(rerank_dense(unit(data[0]), unit(data[3]), 20, 6, 0.3), data)


def evaluate_published(file: str, *data: np.ndarray) -> tuple[float, float]:
    """The same by a script of others, whose re_ranking takes Euclidean distances."""
    re_ranking = runpy.run_path(file)["re_ranking"]
    query, gallery = unit(data[0]), unit(data[3])

    def euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = 2 - 2 * a @ b.T
        np.maximum(squared, 0, out=squared)
        return np.sqrt(squared, out=squared)

    pairs = (query, gallery), (query, query), (gallery, gallery)
    return score(re_ranking(*(euclidean(a, b) for a, b in pairs)), data)


def score(distances: np.ndarray, data: Sequence[np.ndarray]) -> tuple[float, float]:
    """Mean AP and rank-1 of (Q, G) distances."""
    _, query_pids, query_camids, _, gallery_pids, gallery_camids = data
    order = np.argsort(distances, axis=1)
    return compiled_loop()(order, query_pids, query_camids, gallery_pids, gallery_camids)


@cache
def compiled_loop() -> Callable[..., tuple[float, float]]:
    """`score_sorted`, compiled at its first call."""
    import numba

    return numba.njit(score_sorted)


def score_sorted(
    order: np.ndarray,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
) -> tuple[float, float]:
    """Mean AP and rank-1 of sorted galleries, (Q, G)."""
    sum_of_aps, firsts, valid = 0.0, 0, 0
    for query in range(len(order)):
        seen, found, precisions = 0, 0, 0.0
        is_first = False
        for image in order[query]:
            same = gallery_pids[image] == query_pids[query]
            if same and gallery_camids[image] == query_camids[query]:
                continue
            seen += 1
            if same:
                found += 1
                precisions += found / seen
                is_first = is_first or seen == 1
        if found:
            valid += 1
            sum_of_aps += precisions / found
            firsts += is_first
    return sum_of_aps / valid, firsts / valid


def rerank_dense(
    query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lambda_value: float
) -> np.ndarray:
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017) as the paper writes it down, in float32."""
    Q = len(query)
    images = np.concatenate([query, gallery])
    N = len(images)
    squares = (images**2).sum(1)
    original = squares[:, None] + squares - 2 * images @ images.T  # (N, N)
    original /= original.max(axis=1, keepdims=True)
    order = np.argsort(original, axis=1).astype(np.int32)  # (N, N)

    codes = np.zeros((N, N), dtype=np.float32)
    for image in range(N):
        base = reciprocal(order, image, k1)
        expanded = [base]
        for member in base:
            half = reciprocal(order, member, round(k1 / 2))
            if len(np.intersect1d(half, base, assume_unique=True)) > 2 / 3 * len(half):
                expanded.append(half)
        members = np.unique(np.concatenate(expanded))
        weights = np.exp(-original[image, members])
        codes[image, members] = weights / weights.sum()

    original = original[:Q, Q:].copy()
    averaged = np.empty_like(codes)
    for image in range(N):
        averaged[image] = codes[order[image, :k2]].mean(axis=0)
    codes = averaged
    del averaged, order

    containing = [codes[:, image].nonzero()[0] for image in range(N)]  # the inverted index
    for image in range(Q):
        shared = np.zeros(N, dtype=np.float32)
        for entry in codes[image].nonzero()[0]:
            others = containing[entry]
            shared[others] += np.minimum(codes[image, entry], codes[others, entry])
        jaccard = 1 - shared[Q:] / (2 - shared[Q:])
        original[image] = (1 - lambda_value) * jaccard + lambda_value * original[image]
    return original


def reciprocal(order: np.ndarray, image: int, k: int) -> np.ndarray:
    """Those of an image's k nearest (and itself) that have it among theirs."""
    forward = order[image, : k + 1]
    return forward[(order[forward, : k + 1] == image).any(axis=1)]


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
