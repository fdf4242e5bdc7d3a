"""The page's plots, as SVG for light and dark backgrounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_INK = "#888888"  # on white and on black alike
_CURVES = ("#3b7dd8", "#e08a1e")
_SAME, _DIFFERENT = "#2e9e5b", "#d1495b"


def plot_cmc(curves: Mapping[str, Sequence[float]], ranks: int = 20) -> str:
    """Plot the share of queries with a match among the k nearest, over k, for each model."""
    figure, axes = _figure()
    lowest = 90.0
    for (label, cmc), colour in zip(curves.items(), _CURVES, strict=False):
        values = 100 * np.asarray(cmc[:ranks], dtype=float)
        axes.plot(range(1, len(values) + 1), values, color=colour, marker=".", label=label)
        lowest = min(lowest, values[0])
    axes.set(xlabel="rank k", ylabel="queries found (%)", ylim=(lowest * 0.9, 101))
    if len(curves) > 1:
        axes.legend(labelcolor=_INK, frameon=False, loc="lower right", fontsize="small")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure)


def plot_distances(edges: np.ndarray, same: np.ndarray, different: np.ndarray) -> str:
    """Plot the densities of the distances of one person's images, and of two people's."""
    figure, axes = _figure()
    groups = (same, _SAME, "same person"), (different, _DIFFERENT, "different people")
    for counts, colour, label in groups:
        density = counts / max(counts.sum(), 1) / np.diff(edges)
        axes.stairs(density, edges, color=colour, fill=True, alpha=0.4)
        axes.stairs(density, edges, color=colour, label=label)
    used = np.flatnonzero(same + different)
    if len(used):
        axes.set_xlim(edges[used[0]], edges[used[-1] + 1])
    axes.set(xlabel="distance", ylabel="density", ylim=(0, None))
    axes.legend(labelcolor=_INK, frameon=False, loc="upper right", fontsize="small")
    return _svg(figure)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, 2.8), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    axes.grid(alpha=0.25)
    return figure, axes


def _svg(figure: Figure) -> str:
    """Return the SVG without the XML head; the same for the same curves."""
    text = StringIO()
    with rc_context({"svg.hashsalt": "rga_timm"}):
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue().partition("?>")[2].partition(">")[2].strip()
