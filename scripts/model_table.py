"""The README's table of models, from the models themselves.

    python scripts/model_table.py            # write it into README.md
    python scripts/model_table.py --check    # exit 1 if README.md has another

Nothing is computed and nothing downloaded: models are built without memory.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import page_part
import timm
import torch
from benchmark import count_flops
from timm.models import PretrainedCfg, get_arch_pretrained_cfgs

import rga_timm  # noqa: F401 - registers the models
from rga_timm.models._weights import HUB_ORGANISATION

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- models: made by scripts/model_table.py -->", "<!-- models: end -->"
HEADER = ("model", "parameters (M)", "GFLOPs", "image size", "embedding", "ImageNet weights")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table or compare it; the exit status."""
    return page_part.update(
        argv, doc=__doc__, pages=[README], marks=(START, END), part=format_table
    )


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
    image = torch.empty(1, *model.pretrained_cfg["input_size"], device="meta")
    cfg = imagenet_cfg(name)
    if hub := cfg.hf_hub_id:
        source = f"[{hub}](https://huggingface.co/{hub})"
    else:
        source = f"[{Path(cfg.url).name}]({cfg.url})"
    return [
        f"`{name}`",
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}",
        f"{count_flops(model, image) / 1e9:.2f}",
        "{}x{}".format(*model.native_size),
        str(model.head_hidden_size),
        source,
    ]


def imagenet_cfg(name: str) -> PretrainedCfg:
    """Where the ImageNet weights of a model's backbone are, beside its checkpoints of ours."""
    cfgs = get_arch_pretrained_cfgs(name).values()
    ours = f"{HUB_ORGANISATION}/"
    return next(c for c in cfgs if c.has_weights and not (c.hf_hub_id or "").startswith(ours))


if __name__ == "__main__":
    sys.exit(main())
