"""Curves of a training run, from its summary.csv: losses, accuracy, learning rate, scores."""

import csv
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rga_timm.data.text_file import whole_file

Curve = tuple[list[int], list[float]]


def draw_curves(run: Path) -> Path:
    """Draw ``curves.png`` beside a run's summary.csv.

    Raises:
        FileNotFoundError, ValueError: There is no summary.csv of rga-timm finetune.
    """
    curves = read_summary(run / "summary.csv")
    # Without pyplot, which keeps figures and needs a screen.
    figure = Figure(figsize=(12, 3.6), layout="constrained", dpi=100)
    losses, accuracy, lr, scores = figure.subplots(1, 4, sharex=True)
    names = {
        "train_cross_entropy": (losses, "cross-entropy"), "train_triplet": (losses, "triplet"),
        "train_accuracy": (accuracy, "training identities"), "lr": (lr, "learning rate"),
    }  # fmt: skip
    for column, (epochs, values) in curves.items():
        if column.endswith(("mAP", "rank1")):
            axes, label = scores, column.removeprefix("eval_").replace("rank1", "rank-1")
        elif column in names:
            axes, label = names[column]
        else:
            continue
        factor = 100 if axes in (accuracy, scores) else 1
        marker = "." if len(epochs) < 50 else ""
        axes.plot(epochs, [factor * value for value in values], marker=marker, label=label)
    titles = ("loss", "accuracy (%)", "learning rate", "test (%)")
    for axes, title in zip((losses, accuracy, lr, scores), titles, strict=True):
        finish_axes(axes, title)
    picture = run / "curves.png"
    with whole_file(picture) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary), metadata={"Software": None})
    return picture


def read_summary(file: Path) -> dict[str, Curve]:
    """Read the columns of a summary: epochs, from one, and values; without gaps."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or "train_cross_entropy" not in rows[0]:
        raise ValueError(f"{file} is not the summary of a run of rga-timm finetune")
    return {
        column: (
            [int(row["epoch"]) + 1 for row in rows if row[column]],
            [float(row[column]) for row in rows if row[column]],
        )
        for column in rows[0]
        if column != "epoch"
    }


def finish_axes(axes: Axes, title: str) -> None:
    """Add title, grid, whole epochs, and a legend for several lines."""
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(axes.lines) > 1:
        axes.legend()
    if axes.lines:
        axes.set_ylim(bottom=0)
