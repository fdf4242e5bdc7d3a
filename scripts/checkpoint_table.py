"""The table of checkpoints in MODEL_CARD.md and README.md, from the manifest of weights/.

python scripts/checkpoint_table.py                             # write it into both
python scripts/checkpoint_table.py --check                     # exit 1 if one has another
python scripts/checkpoint_table.py --file PAGE                 # the same for another page
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import page_part

from rga_timm.evaluation.reports.markdown import markdown_table
from rga_timm.hub import read_manifest

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "MODEL_CARD.md", ROOT / "README.md")
START, END = (
    "<!-- checkpoints: made by scripts/checkpoint_table.py -->",
    "<!-- checkpoints: end -->",
)
HEADER = (
    "checkpoint", "trained on", "tested on", "image size", "licence",
    "size (MB)", "mAP", "mAP (trapezoid)", "mINP", "rank-1",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table or compare it; the exit status."""
    return page_part.update(argv, doc=__doc__, pages=PAGES, marks=(START, END), part=format_part)


def format_part() -> str:
    """Markdown: a line a checkpoint."""
    rows = [HEADER]
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


if __name__ == "__main__":
    sys.exit(main())
