"""Parts of the documentation that are made from the code: models, checkpoints, data sets.

    python scripts/tables.py            # write them
    python scripts/tables.py --check    # exit 1 if a page is out of date

Nothing is downloaded: models are built without memory. Each part stands between two comments.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import timm
import torch
from timm.models import PretrainedCfg, get_arch_pretrained_cfgs

from rga_timm.data import Counts, DatasetInfo, dataset_info, list_datasets
from rga_timm.evaluation.cost import count_flops
from rga_timm.evaluation.reports.tables import markdown_table
from rga_timm.hub import read_manifest
from rga_timm.weights import HUB_ORGANISATION

ROOT = Path(__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the parts, or compare them; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    args = parser.parse_args(argv)
    status = 0
    for name, (make, pages) in PARTS.items():
        part = make()
        for page in pages:
            text = (ROOT / page).read_text(encoding="utf-8")
            updated = replace_part(text, name, part)
            if not args.check:
                (ROOT / page).write_text(updated, encoding="utf-8")
            elif updated != text:
                print(f"{page} is out of date in its {name}: run scripts/tables.py")
                status = 1
    return status


def replace_part(text: str, name: str, part: str) -> str:
    """Put a new part between its two comments.

    Raises:
        ValueError: The page does not have each of the comments once.
    """
    start, end = f"<!-- {name}: made by scripts/tables.py -->", f"<!-- {name}: end -->"
    if (text.count(start), text.count(end)) != (1, 1):
        raise ValueError(f"a page needs the lines {start} and {end}, once each")
    before, rest = text.split(start)
    return f"{before}{start}\n{part}\n{end}{rest.split(end)[1]}"


def checkpoint_table() -> str:
    """Make a row for each checkpoint of the manifest."""
    header = (
        "checkpoint", "trained on", "tested on", "image size", "licence",
        "size (MB)", "mAP", "mAP (trapezoid)", "mINP", "rank-1",
    )  # fmt: skip
    rows = [header]
    for name, entry in read_manifest(ROOT / "weights").items():
        metrics = entry["metrics"]
        scores = (metrics[score] for score in ("mAP", "mAP_trapezoid", "mINP", "rank1"))
        rows.append(
            (
                f"[`{name}`](weights/{name}/README.md)",
                ", ".join(entry["trained_on"]),
                entry["dataset"],
                "{}x{}".format(*entry["img_size"]),
                entry["license"],
                f"{entry['size'] / 1e6:.1f}",
                *(f"{100 * score:.1f}" for score in scores),
            )
        )
    return markdown_table(rows, text=5)


def model_table() -> str:
    """Make a row for each model; parameters and GFLOPs without classifier."""
    header = ("model", "parameters (M)", "GFLOPs", "image size", "embedding", "ImageNet weights")
    lines = ["| " + " | ".join(header) + " |", "| --- | ---: | ---: | --- | ---: | --- |"]
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


def data_sets() -> str:
    """Make a section for each published data set."""
    infos = [dataset_info(name) for name in list_datasets()]
    return "\n\n".join(section(info) for info in infos if info.layouts)


def section(info: DatasetInfo) -> str:
    """What a data set is, its layouts, counts and options, and the command."""
    about = inspect.getdoc(inspect.getmodule(info.factory)) or ""
    parts = [f"### {info.title}", about]
    parts.append("Layouts:\n\n" + "\n".join(f"- {layout}" for layout in layouts(info)))
    if info.published:
        parts.append(counts_table(info))
    described = argument_texts(info)
    if options := [
        f"- `{name}={default(p)}`: {described[name]}" for name, p in info.options.items()
    ]:
        parts.append("Options, with their defaults:\n\n" + "\n".join(options))
    program = "finetune" if "train" in info.published else "evaluate output/RUN"
    parts.append(f"```bash\nrga-timm {program} --dataset {info.name} --data-dir DIR\n```")
    return "\n\n".join(parts)


def layouts(info: DatasetInfo) -> list[str]:
    """Each layout on a line: what must be there, and whose it is."""
    return [
        f"{', '.join(f'`{path}`' for path in layout.paths)} ({layout.name})"
        for layout in info.layouts
    ]


def default(parameter: inspect.Parameter) -> str:
    """An option's default as it is written in a spec."""
    value = parameter.default
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def counts_table(info: DatasetInfo) -> str:
    """The published counts, those columns that have any."""
    fields = [
        field
        for field in Counts._fields
        if any(getattr(counts, field) is not None for counts in info.published.values())
    ]
    lines = [f"| split | {' | '.join(fields)} |", "| --- |" + " ---: |" * len(fields)]
    for split, counts in info.published.items():
        cells = [getattr(counts, field) for field in fields]
        numbers = ["" if cell is None else f"{cell:,}" for cell in cells]
        lines.append(f"| {split} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def argument_texts(info: DatasetInfo) -> dict[str, str]:
    """What the reader's docstring says of each argument, on one line."""
    doc = inspect.getdoc(info.factory) or ""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", doc, re.M | re.S)
    if section is None:
        return {}
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", section[1], re.M | re.S)
    return {name: " ".join(text.split()) for name, text in entries}


# From the name of a part to what makes it, and the pages that it stands in.
PARTS: dict[str, tuple[Callable[[], str], tuple[str, ...]]] = {
    "models": (model_table, ("README.md",)),
    "checkpoints": (checkpoint_table, ("README.md", "MODEL_CARD.md")),
    "data sets": (data_sets, ("DATA.md",)),
}


if __name__ == "__main__":
    sys.exit(main())
