"""What becomes of a model at image sizes that it was not trained at, without further training.

    python scripts/benchmarks/size_study.py output/RUN/model --img-size 80 40

At each size twice: with the relation weights resampled, as loading a checkpoint does, and with the
same weights drawn anew, which is all that could be done without resampling. The rest of the network
is the same. Prints a Markdown table; --output keeps the scores as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config

import rga_timm  # noqa: F401 - registers the models with timm
from rga_timm.data import ReidSplits, create_dataset
from rga_timm.evaluation import Compute, ModelRecord, Protocol, Report, evaluate_dataset
from rga_timm.layers import RGA

WEIGHTS = ("resampled", "drawn anew")


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="an RGA model, as hf-hub:OWNER/NAME or local-dir:PATH")
    add(
        "--img-size",
        type=int,
        nargs=2,
        action="append",
        metavar=("H", "W"),
        help="pixels; may be given several times, and is, beside the model's own size",
    )
    add("--dataset", default="pedestrians", metavar="NAME[:OPTION=VALUE,...]")
    add("--data-dir", type=Path, metavar="DIR", help="where it lies; pedestrians can do without")
    add("--batch-size", type=int, default=128)
    add("--workers", type=int, default=2)
    add("--seed", type=int, default=0, help="of what is drawn anew")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--output", type=Path, metavar="JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Evaluate at every size, print the table, and return its rows."""
    parser = get_parser()
    args = parser.parse_args(argv)
    model = timm.create_model(args.model, pretrained=True, num_classes=0)
    if not any(isinstance(m, RGA) for m in model.modules()):
        parser.error(f"{args.model} has no relation attention to resample")
    splits = create_dataset(args.dataset, args.data_dir)

    own_size = model.img_size
    sizes = dict.fromkeys([own_size, *(tuple(size) for size in args.img_size or [])])
    rows = []
    for size in sizes:
        for weights in WEIGHTS:
            model = timm.create_model(args.model, pretrained=True, num_classes=0, img_size=size)
            if weights == "drawn anew":
                draw_position_weights(model, args.seed)
            scores = evaluate(args, model, splits).metrics
            rows.append(
                {
                    "img_size": size,
                    "weights": weights,
                    "mAP": scores["mAP"],
                    "rank1": scores["cmc"][0],
                }
            )
    print(format_table(rows, own_size))
    if args.output:
        args.output.write_text(json.dumps(rows, indent=2, default=float) + "\n")
    return rows


def draw_position_weights(model: torch.nn.Module, seed: int) -> None:
    """Initialise the weights that look at positions; all others stay as they are."""
    torch.manual_seed(seed)
    for rga in (m for m in model.modules() if isinstance(m, RGA)):
        for name in rga.position_weights():
            rga.get_submodule(name.removesuffix(".weight")).reset_parameters()


def evaluate(args: argparse.Namespace, model: Any, splits: ReidSplits) -> Report:
    """Scores at the model's own image size and preprocessing."""
    config = resolve_model_data_config(model)
    preprocessing = {name: config[name] for name in ("mean", "std", "interpolation")}
    return evaluate_dataset(
        model,
        splits,
        Protocol(img_size=model.img_size, **preprocessing),
        ModelRecord(args.model),
        compute=Compute(args.device, args.batch_size, args.workers),
    )


def format_table(rows: Sequence[dict[str, Any]], own_size: tuple[int, int]) -> str:
    """Markdown: a line a size, mAP and rank-1 in percent for each kind of weights."""
    header = ["image size", *(f"{w}: {s}" for w in WEIGHTS for s in ("mAP", "rank-1"))]
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (2 * len(WEIGHTS))]
    for size in dict.fromkeys(row["img_size"] for row in rows):
        cells = ["{}x{}".format(*size) + (" (trained at)" if size == own_size else "")]
        for row in (row for row in rows if row["img_size"] == size):
            cells += [f"{100 * row['mAP']:.1f}", f"{100 * row['rank1']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
