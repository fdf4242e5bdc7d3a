"""A picture of a split: a row for each of some people, a column for each camera."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..reader import ReidDataset, ReidReader
from ..splits import DISTRACTOR_PID

HEIGHT = 128  # pixels of a thumbnail
_WIDEST = 192
_NARROWEST = 72  # of a column, for its label
GAP = 4
LABEL = 14  # pixels of a line of text
_LEFT = 64  # of the column with the ids
_MOST_COLUMNS = 24  # beyond that the sheet is too wide to look at
BACK, INK, _EMPTY = (255, 255, 255), (0, 0, 0), (232, 232, 232)


def contact_sheet(
    reader: ReidReader, title: str, *, ids: int = 12, seed: int = 0, has_cameras: bool = True
) -> Image.Image:
    """Thumbnails of some people under all cameras, to see at a glance whether pids mean people.

    Args:
        reader: A split.
        title: What is written above it.
        ids: How many people at most, drawn at random by ``seed``. Not the distractor.
        seed: At least 0.
        has_cameras: `ReidSplits.has_cameras`. Without, columns are the images of a person one
            after another.

    Returns:
        An RGB image: of each person and camera the first image. A cell without an image is grey;
        one that cannot be read says so.

    Raises:
        ValueError: The split is empty.
    """
    if not len(reader):
        raise ValueError(f"there is nothing to show: {title} has no images")
    pids = np.unique(reader.pids)
    people = np.setdiff1d(pids, [DISTRACTOR_PID]) if len(pids) > 1 else pids
    rows = np.sort(np.random.default_rng(seed).permutation(people)[:ids]).tolist()
    index_of: dict[tuple[int, int], int] = {}  # from (pid, column)
    for pid in rows:
        for number, index in enumerate(np.flatnonzero(reader.pids == pid).tolist()):
            column = int(reader.camids[index]) if has_cameras else number
            index_of.setdefault((pid, column), index)
    columns = sorted({column for _, column in index_of})
    if len(columns) > _MOST_COLUMNS:
        title += f" - the first {_MOST_COLUMNS} of {len(columns)} columns"
        columns = columns[:_MOST_COLUMNS]
    shown = {key: thumbnail(reader, i) for key, i in index_of.items() if key[1] in columns}
    width = max(_NARROWEST, *(picture.width for picture in shown.values()))
    top, font = 2 * (LABEL + GAP), ImageFont.load_default()
    least = round(font.getlength(title)) + 2 * GAP
    size = max(_LEFT + len(columns) * (width + GAP), least), top + len(rows) * (HEIGHT + GAP)
    sheet = Image.new("RGB", size, BACK)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, fill=INK, font=font)
    for x, column in enumerate(columns):
        left = _LEFT + x * (width + GAP)
        label = f"camera {column}" if has_cameras else f"image {column + 1}"
        draw.text((left, GAP + LABEL), label, fill=INK, font=font)
        for y, pid in enumerate(rows):
            above = top + y * (HEIGHT + GAP)
            if x == 0:
                draw.text((GAP, above + HEIGHT // 2), f"id {pid}", fill=INK, font=font)
            draw.rectangle((left, above, left + width - 1, above + HEIGHT - 1), fill=_EMPTY)
            if (pid, column) in shown:
                sheet.paste(shown[pid, column], (left, above))
    return sheet


def stack_sheets(sheets: list[Image.Image]) -> Image.Image:
    """Several sheets one below the other."""
    size = max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)
    stacked, top = Image.new("RGB", size, BACK), 0
    for sheet in sheets:
        stacked.paste(sheet, (0, top))
        top += sheet.height
    return stacked


def thumbnail(reader: ReidReader, index: int) -> Image.Image:
    """An image of the height of a row; one that cannot be read says so."""
    try:
        pixels: Image.Image = ReidDataset(reader)[index][0]
    except RuntimeError:
        pixels = Image.new("RGB", (HEIGHT // 2, HEIGHT), _EMPTY)
        ImageDraw.Draw(pixels).multiline_text((2, HEIGHT // 2), "cannot\nbe read", fill=INK)
        return pixels
    scale = min(HEIGHT / pixels.height, _WIDEST / pixels.width)
    size = max(round(pixels.width * scale), 1), max(round(pixels.height * scale), 1)
    return pixels.resize(size)
