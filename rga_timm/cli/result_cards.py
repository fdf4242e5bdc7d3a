"""People found, as HTML cards with their pictures: for `search --page` and for the demo."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rga_timm.data import ReidImage, ReidReader
from rga_timm.report_page.pictures import read_picture, thumbnail

# The fallbacks are for a page without Gradio.
CSS = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 8px; }
.card { margin: 0; padding: 6px; border: 1px solid var(--border-color-primary, #d4d4d8);
  border-radius: 6px; background: var(--background-fill-secondary, #fafafa); min-width: 0; }
.card.query { border: 2px solid var(--color-accent, #c00000); }
.card img { display: block; width: 100%; height: 168px; object-fit: contain; margin: 0; }
.card figcaption { display: block; font-size: 13px; line-height: 1.4; margin-top: 4px; }
.card .line { display: flex; justify-content: space-between; }
.card .known, .card .name { display: block; overflow-wrap: anywhere; }
.card .name { color: var(--body-text-color-subdued, #71717a); white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; font-size: 12px; }
"""
_HEAD = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Search results</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ font-family: system-ui, sans-serif; margin: 16px; }}{CSS}</style></head><body>
"""


def card(
    picture: Image.Image | None, rank: str, similarity: str = "", known: str = "", path: str = ""
) -> str:
    """A card with a picture, its rank, similarity and path, and what is known of it, escaped."""
    alt = rank if rank == "query" else f"rank {rank}"
    shown = f'<img src="{thumbnail(picture)}" alt="{alt}">' if picture else "cannot be read"
    return (
        f'<figure class="card{" query" if rank == "query" else ""}">{shown}'
        f'<figcaption><span class="line"><b>{rank}</b> <span>{similarity}</span></span>'
        f'<span class="known">{html.escape(known)}</span><span class="name" '
        f'title="{html.escape(path)}">{html.escape(Path(path).name)}</span></figcaption></figure>'
    )


def describe_row(row: Mapping[str, Any]) -> str:
    """Describe an image of an index in words."""
    known = {"person": row["pid"], "camera": row.get("camera", row["camid"])}
    words = [f"{name} {value}" for name, value in known.items() if value not in (None, -1)]
    return ", ".join([*words, *(str(t) for t in (row.get("time"), row["split"]) if t)])


def search_page(
    queries: Sequence[Path], found: Sequence[Sequence[Mapping[str, Any]]], root: Path | None = None
) -> str:
    """Show results of `SearchIndex.query` on a page; `root` replaces the folders of the images."""
    parts = []
    for query, rows in zip(queries, found, strict=True):
        cards = [card(_picture(query), "query", path=str(query))]
        for row in rows:
            rank, similarity = str(row["rank"]), f"{row['similarity']:.3f}"
            picture = _picture(Path(root or row["root"], row["path"]))
            cards.append(card(picture, rank, similarity, describe_row(row), row["path"]))
        parts.append(f'<div class="cards">{"".join(cards)}</div>')
    return f"{_HEAD}{'<hr>'.join(parts)}</body></html>"


def _picture(file: Path) -> Image.Image | None:
    try:
        return read_picture(ReidReader("", [ReidImage(str(file), -1, -1)]), 0)
    except RuntimeError:
        return None
