"""DATA.md's part on published data sets, from the readers themselves.

python scripts/data_page.py            # write it into DATA.md
python scripts/data_page.py --check    # exit 1 if DATA.md has another
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import page_part

from rga_timm.data import Counts, DatasetInfo, dataset_info, list_datasets

PAGE = Path(__file__).parents[1] / "DATA.md"
START, END = "<!-- data sets: made by scripts/data_page.py -->", "<!-- data sets: end -->"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the part or compare it; the exit status."""
    return page_part.update(argv, doc=__doc__, pages=[PAGE], marks=(START, END), part=format_part)


def format_part() -> str:
    """Markdown: a section for each data set that others published."""
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
    program = "finetune.py" if "train" in info.published else "evaluate.py local-dir:RUN/model"
    parts.append(f"```bash\npython scripts/{program} --dataset {info.name} --data-dir DIR\n```")
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


if __name__ == "__main__":
    sys.exit(main())
