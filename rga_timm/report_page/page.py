"""From an evaluation to one HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from tqdm import tqdm

from rga_timm.data import ReidReader, ReidSplits
from rga_timm.evaluation import Embeddings, Report, format_card, format_intervals
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


def write_page(
    path: str | Path,
    report: Report,
    splits: ReidSplits,
    query: Embeddings,
    gallery: Embeddings,
    *,
    model: Any = None,
    transform: Any = None,
    device: Any = "cpu",
    options: PageOptions | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the page of an evaluation.

    Args:
        path: The file.
        report: With its ``per_query``.
        splits: What was tested on.
        query: The features that were ranked.
        gallery: The same.
        model: For its attention maps; without any they are left out.
        transform: The model's preprocessing, from an image to a tensor.
        device: Where the model runs.
        options: What is shown.
        progress: Show a bar.

    Returns:
        ``queries`` shown, ``images`` in the file, and its ``bytes``.

    Raises:
        ValueError: If the report does not say how each query fared, or not even one query fits
            into the budget.
    """
    if report.per_query is None:
        raise ValueError("the page needs a report with per_query")
    options = options or PageOptions()
    ranked = rank_all(query, gallery, metric=report.protocol.metric, top=options.top)
    shown = _Pictures(splits, model, transform, device, options, progress)
    wanted = choose_queries(_precisions(report), options.queries, options.seed)
    while True:
        page = _render(report, splits, query, gallery, ranked, wanted, shown, options)
        size = len(page.encode("utf-8"))
        if size <= options.budget * _MB:
            break
        if len(wanted) == 1:
            raise ValueError(f"one query alone takes {size / _MB:.1f} MB: raise the budget")
        # All of it counts, also what does not depend on the queries: never too few steps.
        fewer = int(len(wanted) * 0.9 * options.budget * _MB / size)
        wanted = choose_queries(_precisions(report), max(1, fewer), options.seed)
    Path(path).write_text(page, encoding="utf-8")
    return {"queries": len(wanted), "images": page.count("data:image/jpeg"), "bytes": size}


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
        self,
        splits: ReidSplits,
        model: Any,
        transform: Any,
        device: Any,
        options: PageOptions,
        progress: bool,
    ) -> None:
        self.readers = {"q": splits.query, "g": splits.gallery}
        self.first = {kind: first_images(reader) for kind, reader in self.readers.items()}
        self.model = model if transform and has_spatial_attention(model) else None
        self.transform, self.device = transform, device
        self.options, self.progress = options, progress
        self.made: dict[str, dict[str, Any]] = {}

    def of(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """``src`` and ``maps`` of images, which are named as ``q12`` and ``g345``."""
        if self.options.no_images:
            return {}
        new = [name for name in dict.fromkeys(names) if name not in self.made]
        step = 32
        for start in tqdm(range(0, len(new), step), "pictures", disable=not self.progress):
            part = new[start : start + step]
            images = [read_picture(*self._place(name)) for name in part]
            maps: list[list[dict[str, Any]]] = [[] for _ in part]
            if self.model is not None:
                maps = attention_of(self.model, self.transform, images, device=self.device)
            for name, image, stages in zip(part, images, maps, strict=True):
                src = thumbnail(image, self.options.blur_faces)
                self.made[name] = {"src": src, "maps": stages}
        return {name: self.made[name] for name in names}

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
    report: Report,
    splits: ReidSplits,
    query: Embeddings,
    gallery: Embeddings,
    ranked: Ranked,
    wanted: dict[int, str],
    pictures: _Pictures,
    options: PageOptions,
) -> str:
    """The page with these queries."""
    lists: list[dict[str, Any]] = []
    for q, group in wanted.items():
        results = [
            {
                "image": f"g{g}",
                "pid": int(gallery.pids[g]),
                "camera": int(gallery.camids[g]),
                "distance": round(float(distance), 4),
                "right": bool(gallery.pids[g] == query.pids[q]),
                "path": pictures.path(f"g{g}"),
            }
            for g, distance in zip(ranked.nearest[q], ranked.distances[q], strict=True)
            if g >= 0
        ]
        lists.append({"query": q, "group": group, "results": results})
    names = [name for one in lists for name in (f"q{one['query']}", *_images(one["results"]))]
    columns = report.per_query or {}
    queries = [
        {
            "path": pictures.path(f"q{i}"),
            "pid": int(query.pids[i]),
            "camera": int(query.camids[i]),
            "precision": None if ap is None else round(ap, 4),
            "first": first,
        }
        for i, (ap, first) in enumerate(
            zip(columns["average_precision"], columns["first_match_rank"], strict=True)
        )
    ]
    data: dict[str, Any] = {
        "lists": lists,
        "images": pictures.of(names),
        "queries": queries,
        "cameras": splits.has_cameras,
    }
    # Nothing in it may end the element that it stands in.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    environment = Environment(
        loader=PackageLoader("rga_timm.report_page"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        title=f"{report.model} on {report.dataset['name']}",
        report=report,
        metrics=_metrics(report),
        intervals=format_intervals([report]),
        card=format_card(report),
        cmc=plot_cmc(report.metrics["cmc"]),
        distances=plot_distances(ranked.edges, ranked.same, ranked.different),
        cameras=_camera_table(ranked) if splits.has_cameras else None,
        stages=max((len(image["maps"]) for image in data["images"].values()), default=0),
        options=asdict(options),
        shown=len(lists),
        data=text,
    )


def _images(results: Sequence[dict[str, Any]]) -> list[str]:
    return [result["image"] for result in results]


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
