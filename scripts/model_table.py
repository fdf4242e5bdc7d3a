"""The README's table of models, from the models themselves.

    python scripts/model_table.py            # write it into README.md
    python scripts/model_table.py --check    # exit 1 if README.md has another

Nothing is computed and nothing downloaded: models are built without memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import timm
import torch
from benchmark import count_flops

import rga_timm  # noqa: F401 - registers the models

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- models: made by scripts/model_table.py -->", "<!-- models: end -->"
HEADER = ("model", "parameters (M)", "GFLOPs", "image size", "embedding", "ImageNet weights")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table or compare it; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--file", type=Path, default=README, help="(default: README.md)")
    args = parser.parse_args(argv)
    text = args.file.read_text()
    if START not in text or END not in text:
        parser.error(f"{args.file} has no lines {START} and {END} for the table to stand between")
    before, rest = text.split(START)
    _, after = rest.split(END)
    updated = f"{before}{START}\n{format_table()}\n{END}{after}"
    if args.check and updated != text:
        print(f"{args.file}: the table of models is out of date; run scripts/model_table.py")
        return 1
    if not args.check:
        args.file.write_text(updated)
    return 0


def format_table() -> str:
    """Markdown: a line a model; parameters and GFLOPs without classifier."""
    lines = ["| " + " | ".join(HEADER) + " |", "| --- | ---: | ---: | --- | ---: | --- |"]
    names = [name for name in timm.list_models("*rga*") if not name.startswith("test_")]
    for name in sorted(names, key=family_and_name):
        lines.append("| " + " | ".join(row(name)) + " |")
    return "\n".join(lines)


def family_and_name(name: str) -> tuple[str, float, str]:
    """Families together, the smaller model first."""
    return timm.models.model_entrypoint(name).__module__, float(row(name)[1]), name


@cache
def row(name: str) -> list[str]:
    """The cells of one model."""
    model = timm.create_model(name, device="meta").eval()
    cfg = model.pretrained_cfg
    image = torch.empty(1, *cfg["input_size"], device="meta")
    if hub := cfg.get("hf_hub_id"):
        source = f"[{hub}](https://huggingface.co/{hub})"
    else:
        source = f"[{Path(cfg['url']).name}]({cfg['url']})"
    return [
        f"`{name}`",
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}",
        f"{count_flops(model, image) / 1e9:.2f}",
        "{}x{}".format(*model.native_size),
        str(model.head_hidden_size),
        source,
    ]


if __name__ == "__main__":
    sys.exit(main())
