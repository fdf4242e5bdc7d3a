"""From a model and a data set to one HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import nn
from tqdm import tqdm

from rga_timm.data import ReidReader, ReidSplits
from rga_timm.data.text_file import write_text
from rga_timm.evaluation import (
    Compute,
    Embeddings,
    ModelRecord,
    Protocol,
    Report,
    check_testable,
    format_card,
    format_comparison,
    format_intervals,
    report_embeddings,
)
from rga_timm.evaluation.dataset import embed_queries_and_gallery
from rga_timm.evaluation.reports.per_query import first_images
from rga_timm.evaluation.reports.tables import SCORE_LABELS, percent
from rga_timm.report_page.choose import choose
from rga_timm.report_page.pictures import (
    attention_of,
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
        queries: Number with pictures: a third each of the worst, the best, and random ones.
        top: Number of nearest images of each.
        budget: Of the file, in MB (10^6 bytes); fewer queries are shown if it is too small.
        blur_faces: Blur the upper fifth of every picture.
        no_images: Show no pictures, and no maps over them.
        seed: Of the random queries.
    """

    queries: int = 60
    top: int = 10
    budget: float = 20.0
    blur_faces: bool = False
    no_images: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.queries < 1 or self.top < 1 or self.budget <= 0:
            raise ValueError("a page needs one query, one result and some space at least")


@dataclass(frozen=True)
class Side:
    """A model and its results."""

    report: Report  # with `per_query`
    query: Embeddings
    gallery: Embeddings
    model: Any = None  # for its attention maps; None to leave them out
    transform: Any = None  # the model's preprocessing, from an image to a tensor
    device: Any = "cpu"


def evaluate_side(
    model: nn.Module,
    splits: ReidSplits,
    protocol: Protocol,
    record: ModelRecord,
    *,
    compute: Compute = Compute(),
) -> Side:
    """Find the queries of a data set in its gallery, and keep what the page shows.

    The arguments are those of `evaluate_dataset`. Of an RGA model the page shows the spatial
    attention.

    Raises:
        ValueError: As `check_testable`, or the protocol has multi-query, query expansion or
            re-ranking, whose lists the page does not show.
    """
    if protocol.multi_query or protocol.expansion or protocol.rerank:
        raise ValueError("the page shows plain ranked lists: no multi-query, expansion, re-ranking")
    check_testable([splits])
    query, gallery = embed_queries_and_gallery(model, splits, protocol, compute)
    record = record.with_hash_of(model)
    report = report_embeddings(
        query, gallery, splits, protocol, record, compute=compute, per_query=True
    )
    return Side(report, query, gallery, model, protocol.transform(), compute.device)


def write_page(
    path: str | Path,
    splits: ReidSplits,
    sides: Sequence[Side],
    *,
    options: PageOptions | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the page of an evaluation, or of two models on the same data, side by side.

    For one model the page shows the worst queries, the best, and random ones; for two those that
    only one model finds at rank 1, those that only the other finds, and random ones.

    Returns:
        ``queries`` shown, ``images`` in the file, and its ``bytes``.

    Raises:
        ValueError: A report has no ``per_query``, the two are not of the same data, or not even one
            query fits into the budget.
    """
    reports = [side.report for side in sides]
    columns = [report.per_query for report in reports if report.per_query is not None]
    if not 1 <= len(columns) == len(sides) <= 2:
        raise ValueError("the page is of one report or two, with per_query")
    if reports[0].dataset["fingerprint"] != reports[-1].dataset["fingerprint"]:
        raise ValueError("two models are compared on the same images, and these are not")
    options = options or PageOptions()
    page = _Page(splits, sides, options, progress)
    wanted = choose(columns, options.queries, options.seed)
    while True:
        text = page.render(wanted)
        size = len(text.encode("utf-8"))
        if size <= options.budget * _MB:
            break
        if len(wanted) == 1:
            raise ValueError(f"one query alone takes {size / _MB:.1f} MB: raise the budget")
        fewer = int(len(wanted) * 0.9 * options.budget * _MB / size)
        wanted = choose(columns, max(1, fewer), options.seed)
    write_text(path, text)
    return {"queries": len(wanted), "images": text.count("data:image/jpeg"), "bytes": size}


class _Page:
    """The content of the page; what does not depend on the shown queries is made once."""

    def __init__(
        self, splits: ReidSplits, sides: Sequence[Side], options: PageOptions, progress: bool
    ) -> None:
        self.splits, self.sides, self.options = splits, sides, options
        self.ranked = [
            rank_all(side.query, side.gallery, metric=side.report.protocol.metric, top=options.top)
            for side in sides
        ]
        self.pictures = _Pictures(splits, sides, options, progress)
        self.labels = [side.report.model for side in sides]
        if len(sides) > 1:  # which may have the same name
            self.labels = [f"{k}: {name}" for k, name in zip("AB", self.labels, strict=True)]
        self.context = self._context()

    def render(self, wanted: dict[int, str]) -> str:
        """Make the page with these queries and their groups."""
        lists: list[dict[str, Any]] = []
        names: list[str] = []
        for q, group in wanted.items():
            results = [self._results(q, i) for i in range(len(self.sides))]
            lists.append({"query": q, "group": group, "results": results})
            names += [f"q{q}", *(one["image"] for of_side in results for one in of_side)]
        images = self.pictures.of(names)
        data: dict[str, Any] = {"models": self.labels, "lists": lists, "images": images}
        data |= {"queries": self._queries(), "cameras": self.splits.has_cameras}
        # It must not contain the end of its element.
        text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        loader = PackageLoader("rga_timm.report_page")
        environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
        return environment.get_template("page.html.j2").render(
            **self.context,
            stages=max((len(maps) for one in images.values() for maps in one["maps"]), default=0),
            options=asdict(self.options),
            shown=len(lists),
            data=text,
        )

    def _queries(self) -> list[dict[str, Any]]:
        """Describe all queries, for the table."""
        query = self.sides[0].query
        columns = [of for side in self.sides if (of := side.report.per_query) is not None]
        precisions = [of["average_precision"] for of in columns]
        return [
            {
                "path": self.pictures.path(f"q{i}"),
                "pid": int(query.pids[i]),
                "camera": int(query.camids[i]),
                "precision": [None if (p := of[i]) is None else round(p, 4) for of in precisions],
                "first": [of["first_match_rank"][i] for of in columns],
            }
            for i in range(len(query))
        ]

    def _results(self, q: int, i: int) -> list[dict[str, Any]]:
        """Describe the nearest gallery images of a query, by the i-th model."""
        side, ranked = self.sides[i], self.ranked[i]
        return [
            {
                "image": f"g{g}",
                "pid": int(side.gallery.pids[g]),
                "camera": int(side.gallery.camids[g]),
                "distance": round(float(distance), 4),
                "right": bool(side.gallery.pids[g] == side.query.pids[q]),
                "path": self.pictures.path(f"g{g}"),
            }
            for g, distance in zip(ranked.nearest[q], ranked.distances[q], strict=True)
            if g >= 0
        ]

    def _context(self) -> dict[str, Any]:
        """Make scores, plots and tables."""
        reports = [side.report for side in self.sides]
        two = len(reports) > 1
        named = dict(zip(("the first", "the second"), reports, strict=False))
        curves = {k: r.metrics["cmc"] for k, r in zip(self.labels, reports, strict=True)}
        return {
            "title": f"{', '.join(self.labels)} on {reports[0].dataset['name']}",
            "reports": [
                {
                    "label": label,
                    "report": report,
                    "metrics": [(SCORE_LABELS[k], percent(v)) for k, v in report.scores.items()],
                    "card": format_card(report),
                    "distances": plot_distances(ranked.edges, ranked.same, ranked.different),
                    "cameras": _camera_table(ranked) if self.splits.has_cameras else None,
                }
                for label, report, ranked in zip(self.labels, reports, self.ranked, strict=True)
            ],
            "intervals": "" if two else format_intervals(reports),
            "comparison": format_comparison(named, allow_different=True) if two else "",
            "cmc": plot_cmc(curves),
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
        """Return ``src`` and ``maps``, by side, of images with names such as ``q12``, ``g345``."""
        if self.options.no_images:
            return {}
        new = [name for name in dict.fromkeys(names) if name not in self.made]
        step = 32
        for start in tqdm(range(0, len(new), step), "pictures", disable=not self.progress):
            part = new[start : start + step]
            images = [read_picture(*self._place(name)) for name in part]
            maps = [_maps(side, images) for side in self.sides]
            for name, image, *by_side in zip(part, images, *maps, strict=True):
                src = thumbnail(image, self.options.blur_faces)
                self.made[name] = {"src": src, "maps": by_side}
        return {name: self.made[name] for name in names}

    def _place(self, name: str) -> tuple[ReidReader, int]:
        kind = name[0]
        return self.readers[kind], self.first[kind][int(name[1:])]

    def path(self, name: str) -> str:
        """Return the image's file, as the data set names it."""
        reader, index = self._place(name)
        return str(reader.images[index].path)


def _maps(side: Side, images: Sequence[Image.Image]) -> list[list[dict[str, Any]]]:
    if side.transform is None or not has_spatial_attention(side.model):
        return [[] for _ in images]
    return attention_of(side.model, side.transform, images, device=side.device)


def _camera_table(ranked: Ranked) -> dict[str, Any]:
    """Make the table of rank-1 for queries of one camera among the images of another only."""
    rows = []
    counts = zip(ranked.camera_ids, ranked.camera_hits, ranked.camera_queries, strict=True)
    for camera, all_hits, all_queries in counts:
        pairs = zip(all_hits.tolist(), all_queries.tolist(), strict=True)
        cells = [{"share": round(100 * h / n, 1) if n else None, "queries": n} for h, n in pairs]
        rows.append({"camera": camera, "cells": cells})
    return {"cameras": ranked.camera_ids, "rows": rows}
