"""From an evaluation to one HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from tqdm import tqdm

from rga_timm.data import ReidReader, ReidSplits
from rga_timm.evaluation import (
    Embeddings,
    Report,
    format_card,
    format_comparison,
    format_intervals,
)
from rga_timm.report_page.pictures import (
    attention_of,
    first_images,
    has_spatial_attention,
    read_picture,
    thumbnail,
)
from rga_timm.report_page.plots import plot_cmc, plot_distances
from rga_timm.report_page.ranked import Ranked, rank_all

_MB = 10**6


@dataclass(frozen=True)
class PageOptions:
    """What the page shows.

    Attributes:
        queries: How many are shown with pictures: a third each of the worst, the best, and drawn.
        top: How many of the nearest of each.
        budget: Of the file, in MB (10^6 bytes); fewer queries are shown where it is not enough.
        blur_faces: Blur the upper fifth of every picture.
        no_images: Show no pictures, and no maps over them.
        seed: Of the queries that are drawn.
    """

    queries: int = 60
    top: int = 10
    budget: float = 20.0
    blur_faces: bool = False
    no_images: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to show.

        Raises:
            ValueError: For numbers out of range.
        """
        if self.queries < 1 or self.top < 1 or self.budget <= 0:
            raise ValueError("a page needs one query, one result and some space at least")


@dataclass(frozen=True)
class Side:
    """A model and how it fared.

    Attributes:
        report: With its ``per_query``.
        query: The features that were ranked.
        gallery: The same.
        model: For its attention maps; None to leave them out.
        transform: The model's preprocessing, from an image to a tensor.
        device: Where the model runs.
    """

    report: Report
    query: Embeddings
    gallery: Embeddings
    model: Any = None
    transform: Any = None
    device: Any = "cpu"


def write_page(
    path: str | Path,
    splits: ReidSplits,
    sides: Sequence[Side],
    *,
    options: PageOptions | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the page of an evaluation, or of two models on the same data, side by side.

    Of one model the worst queries are shown, the best, and some drawn; of two those that only the
    one finds at rank 1, those that only the other does, and some drawn.

    Args:
        path: The file.
        splits: What was tested on.
        sides: One or two.
        options: What is shown.
        progress: Show a bar.

    Returns:
        ``queries`` shown, ``images`` in the file, and its ``bytes``.

    Raises:
        ValueError: If a report does not say how each query fared, the two are not of the same data,
            or not even one query fits into the budget.
    """
    reports = [side.report for side in sides]
    if not 1 <= len(sides) <= 2 or any(report.per_query is None for report in reports):
        raise ValueError("the page is of one report or two, with per_query")
    if reports[0].dataset["fingerprint"] != reports[-1].dataset["fingerprint"]:
        raise ValueError("two models are compared on the same images, and these are not")
    options = options or PageOptions()
    ranked = [
        rank_all(side.query, side.gallery, metric=side.report.protocol.metric, top=options.top)
        for side in sides
    ]
    shown = _Pictures(splits, sides, options, progress)
    wanted = _choose(reports, options.queries, options.seed)
    context = _context(splits, reports, ranked)
    while True:
        page = _render(splits, sides, ranked, wanted, shown, options, context)
        size = len(page.encode("utf-8"))
        if size <= options.budget * _MB:
            break
        if len(wanted) == 1:
            raise ValueError(f"one query alone takes {size / _MB:.1f} MB: raise the budget")
        # All of it counts, also what does not depend on the queries: never too few steps.
        fewer = int(len(wanted) * 0.9 * options.budget * _MB / size)
        wanted = _choose(reports, max(1, fewer), options.seed)
    Path(path).write_text(page, encoding="utf-8")
    return {"queries": len(wanted), "images": page.count("data:image/jpeg"), "bytes": size}


def _choose(reports: Sequence[Report], count: int, seed: int) -> dict[int, str]:
    if len(reports) == 1:
        return choose_queries(_precisions(reports[0]), count, seed)
    first = [(report.per_query or {})["first_match_rank"] for report in reports]
    return choose_differing(*first, count=count, seed=seed)


def choose_differing(
    first: Sequence[int | None], other: Sequence[int | None], *, count: int, seed: int = 0
) -> dict[int, str]:
    """Which queries of two models are shown, and why.

    Args:
        first: (Q,) the rank at which the one finds the person; None of a query that does not count.
        other: (Q,) the same of the other.
        count: At most so many.
        seed: Of those that are drawn.

    Returns:
        ``first``, found at rank 1 by the one alone; ``second``, by the other alone; or ``random``.
        A third each, of the former two those that the one which fails finds the latest.
    """
    # By how much the one that fails fails, of those that only the one, and only the other, finds.
    only: dict[str, list[tuple[int, int]]] = {"first": [], "second": []}
    counted = []
    for i, (a, b) in enumerate(zip(first, other, strict=True)):
        if a is None or b is None:
            continue
        counted.append(i)
        if a == 1 < b:
            only["first"].append((-b, i))
        elif b == 1 < a:
            only["second"].append((-a, i))
    third = (count + 2) // 3
    chosen = {i: group for group, found in only.items() for _, i in sorted(found)[:third]}
    chosen = dict(list(chosen.items())[:count])
    rest = np.array([i for i in counted if i not in chosen], dtype=int)
    drawn = np.random.default_rng(seed).permutation(rest)[: count - len(chosen)]
    return chosen | {int(i): "random" for i in np.sort(drawn)}


def choose_queries(precisions: np.ndarray, count: int, seed: int = 0) -> dict[int, str]:
    """Which queries are shown, and why.

    Args:
        precisions: (Q,) average precision; NaN of a query that does not count.
        count: At most so many.
        seed: Of those that are drawn.

    Returns:
        ``worst``, ``best`` or ``random`` of each, the worst ones first.
    """
    counted = np.flatnonzero(~np.isnan(precisions))
    order = counted[np.argsort(precisions[counted], kind="stable")]
    count = min(count, len(order))
    worst, best = order[: (count + 2) // 3], order[len(order) - (count + 1) // 3 :]
    rest = np.setdiff1d(counted, np.concatenate([worst, best]))
    drawn = np.random.default_rng(seed).permutation(rest)[: count - len({*worst, *best})]
    chosen = {int(i): "best" for i in best[::-1]} | {int(i): "random" for i in np.sort(drawn)}
    return {
        **{int(i): "worst" for i in worst},
        **{k: v for k, v in chosen.items() if k not in worst},
    }


class _Pictures:
    """Pictures and maps by image, each made once."""

    def __init__(
        self, splits: ReidSplits, sides: Sequence[Side], options: PageOptions, progress: bool
    ) -> None:
        self.readers = {"q": splits.query, "g": splits.gallery}
        self.first = {kind: first_images(reader) for kind, reader in self.readers.items()}
        self.sides, self.options, self.progress = sides, options, progress
        self.made: dict[str, dict[str, Any]] = {}

    def of(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """``src`` and ``maps``, by side, of images, which are named as ``q12`` and ``g345``."""
        if self.options.no_images:
            return {}
        new = [name for name in dict.fromkeys(names) if name not in self.made]
        step = 32
        for start in tqdm(range(0, len(new), step), "pictures", disable=not self.progress):
            part = new[start : start + step]
            images = [read_picture(*self._place(name)) for name in part]
            maps = [self._maps(side, images) for side in self.sides]
            for name, image, *by_side in zip(part, images, *maps, strict=True):
                src = thumbnail(image, self.options.blur_faces)
                self.made[name] = {"src": src, "maps": by_side}
        return {name: self.made[name] for name in names}

    def _maps(self, side: Side, images: Sequence[Image.Image]) -> list[list[dict[str, Any]]]:
        if side.transform is None or not has_spatial_attention(side.model):
            return [[] for _ in images]
        return attention_of(side.model, side.transform, images, device=side.device)

    def _place(self, name: str) -> tuple[ReidReader, int]:
        kind, place = name[0], int(name[1:])
        return self.readers[kind], self.first[kind][place]

    def path(self, name: str) -> str:
        """The image's file, as the data set names it."""
        reader, index = self._place(name)
        return str(reader.images[index].path)


def _precisions(report: Report) -> np.ndarray:
    columns = report.per_query or {}
    return np.array([np.nan if v is None else v for v in columns["average_precision"]], float)


def _render(
    splits: ReidSplits,
    sides: Sequence[Side],
    ranked: Sequence[Ranked],
    wanted: dict[int, str],
    pictures: _Pictures,
    options: PageOptions,
    context: dict[str, Any],
) -> str:
    """The page with these queries, and with what does not depend on them."""
    reports = [side.report for side in sides]
    lists: list[dict[str, Any]] = [
        {
            "query": q,
            "group": group,
            "results": [
                _results(q, side, of_side, pictures)
                for side, of_side in zip(sides, ranked, strict=True)
            ],
        }
        for q, group in wanted.items()
    ]
    names = [
        name
        for one in lists
        for name in (f"q{one['query']}", *(r["image"] for side in one["results"] for r in side))
    ]
    query = sides[0].query
    precisions, first = (
        [(report.per_query or {})[column] for report in reports]
        for column in ("average_precision", "first_match_rank")
    )
    data: dict[str, Any] = {
        "models": _labels(reports),
        "lists": lists,
        "images": pictures.of(names),
        "queries": [
            {
                "path": pictures.path(f"q{i}"),
                "pid": int(query.pids[i]),
                "camera": int(query.camids[i]),
                "precision": [None if of[i] is None else round(of[i], 4) for of in precisions],
                "first": [of[i] for of in first],
            }
            for i in range(len(query))
        ],
        "cameras": splits.has_cameras,
    }
    # Nothing in it may end the element that it stands in.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    environment = Environment(
        loader=PackageLoader("rga_timm.report_page"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        **context,
        stages=max(
            (len(maps) for image in data["images"].values() for maps in image["maps"]), default=0
        ),
        options=asdict(options),
        shown=len(lists),
        data=text,
    )


def _context(
    splits: ReidSplits, reports: Sequence[Report], ranked: Sequence[Ranked]
) -> dict[str, Any]:
    """What the page shows whichever queries are on it: scores, plots, tables."""
    labels = _labels(reports)
    name = str(reports[0].dataset["name"])
    return {
        "title": f"{', '.join(labels)} on {name}",
        "reports": [
            {
                "label": label,
                "report": report,
                "metrics": _metrics(report),
                "card": format_card(report),
                "distances": plot_distances(of_side.edges, of_side.same, of_side.different),
                "cameras": _camera_table(of_side) if splits.has_cameras else None,
            }
            for label, report, of_side in zip(labels, reports, ranked, strict=True)
        ],
        "intervals": format_intervals(reports[:1]) if len(reports) == 1 else "",
        "comparison": _compare(reports) if len(reports) > 1 else "",
        "cmc": plot_cmc(dict(zip(labels, (r.metrics["cmc"] for r in reports), strict=True))),
    }


def _labels(reports: Sequence[Report]) -> list[str]:
    """The models' names; of two, which may have the same, with a letter each."""
    names = [report.model for report in reports]
    return names if len(names) == 1 else [f"{k}: {n}" for k, n in zip("AB", names, strict=True)]


def _compare(reports: Sequence[Report]) -> str:
    """Two reports side by side, with the differences of their queries."""
    named = dict(zip(("the first", "the second"), reports, strict=True))
    # They may well take images of two sizes, which is said there.
    return format_comparison(named, allow_different=True)


def _results(q: int, side: Side, ranked: Ranked, pictures: _Pictures) -> list[dict[str, Any]]:
    """The nearest of a query."""
    return [
        {
            "image": f"g{g}",
            "pid": int(side.gallery.pids[g]),
            "camera": int(side.gallery.camids[g]),
            "distance": round(float(distance), 4),
            "right": bool(side.gallery.pids[g] == side.query.pids[q]),
            "path": pictures.path(f"g{g}"),
        }
        for g, distance in zip(ranked.nearest[q], ranked.distances[q], strict=True)
        if g >= 0
    ]


def _metrics(report: Report) -> list[tuple[str, str]]:
    """Names and percent."""
    metrics, cmc = report.metrics, report.metrics["cmc"]
    named = [("mAP", metrics["mAP"]), ("mAP, trapezoid AP", metrics["mAP_trapezoid"])]
    named += [("mINP", metrics["mINP"])]
    named += [(f"rank-{k}", cmc[k - 1]) for k in (1, 5, 10) if k <= len(cmc)]
    return [(name, f"{100 * value:.1f}") for name, value in named]


def _camera_table(ranked: Ranked) -> dict[str, Any]:
    """Rank-1 of queries of one camera among the images of another alone."""
    shares = np.divide(
        100.0 * ranked.camera_hits,
        ranked.camera_queries,
        out=np.full(ranked.camera_hits.shape, np.nan),
        where=ranked.camera_queries > 0,
    )
    rows = [
        {
            "camera": camera,
            "cells": [
                {"share": None if np.isnan(share) else round(float(share), 1), "queries": int(n)}
                for share, n in zip(shares[i], ranked.camera_queries[i], strict=True)
            ],
        }
        for i, camera in enumerate(ranked.camera_ids)
    ]
    return {"cameras": ranked.camera_ids, "rows": rows}
