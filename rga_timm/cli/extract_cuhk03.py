"""Extract image files from CUHK03's own file, cuhk-03.mat.

    rga-timm extract-cuhk03 data/cuhk03
    rga-timm extract-cuhk03 data/cuhk03 --output /ssd/cuhk03

This is optional: --dataset cuhk03 reads cuhk-03.mat as it is. Files are easier to look at, and
other programs can read them. They are PNG, in torchreid's layout: images_detected/1_001_1_01.png
(pair of cameras, person, view, number) and images_labeled/. The test sets of the classic protocol
are written to cuhk03_test_sets.json. The lists of the new protocol are copied if they are beside
cuhk-03.mat or in the folder above. Then the folder holds all that --dataset cuhk03 needs.

If interrupted, run it again to continue. Needs h5py: rga-timm[data].
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from rga_timm.cli.options import create_parser
from rga_timm.data.datasets import cuhk03_protocol as lists
from rga_timm.data.datasets.cuhk03 import MAT, RAW
from rga_timm.data.datasets.cuhk03_mat import list_cells, list_test_sets, read_pixels
from rga_timm.data.layout import find_layout
from rga_timm.data.text_file import whole_file
from rga_timm.data.writable import check_writable_folder

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def get_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = create_parser("extract-cuhk03", __doc__)
    add = parser.add_argument
    add("folder", type=Path, metavar="CUHK03_DIR", help="folder that holds cuhk-03.mat")
    add("--output", type=Path, metavar="DIR", help="folder to write to (default: CUHK03_DIR)")
    return parser


def is_whole(path: Path) -> bool:
    """Whether a PNG file exists and is not cut off."""
    try:
        with path.open("rb") as file:
            file.seek(-len(PNG_END), os.SEEK_END)
            return file.read() == PNG_END
    except OSError:
        return False


def extract(mat: Path, output: Path) -> None:
    """Write all images, then the lists."""
    num_images = {}
    for boxes in ("detected", "labeled"):
        folder = output / f"images_{boxes}"
        folder.mkdir(parents=True, exist_ok=True)
        cells = list_cells(mat, boxes)
        num_images[boxes] = len(cells)
        for cell in tqdm(cells, desc=folder.name, unit="image"):
            if not is_whole(folder / cell.name):
                with whole_file(folder / cell.name) as path:
                    Image.fromarray(read_pixels(mat, boxes, cell)).save(path, "PNG")
    test_sets = list_test_sets(mat)
    # The last file: if it exists, all images do.
    lists.write_test_sets(output / lists.TEST_SETS, test_sets, num_images)


def copy_new_protocol(mat: Path, output: Path) -> list[str]:
    """Copy the lists of the new protocol, and return the names of missing ones."""
    missing = []
    for boxes in ("detected", "labeled"):
        copy = output / lists.new_protocol_file(boxes)
        try:
            content = lists.find_new_protocol(mat.parent, boxes).read_bytes()
        except FileNotFoundError:
            missing += [copy.name] * (not copy.exists())
            continue
        if not copy.exists() or copy.read_bytes() != content:
            with whole_file(copy) as path:
                path.write_bytes(content)
    return missing


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(argv)
    output = args.output or args.folder
    again = "Run the same command again to continue."
    try:
        check_writable_folder(output)
        root, _ = find_layout("cuhk03", args.folder, [RAW])
        extract(root / MAT, output)
        missing = copy_new_protocol(root / MAT, output)
    except KeyboardInterrupt:
        print(f"\ninterrupted. {again}", file=sys.stderr)
        sys.exit(130)
    except (ImportError, OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f"no space left in {output}. Free some, or choose --output. {again}")
        sys.exit(str(error))
    print(f"extracted to {output}")
    if missing:
        print(
            f"{' and '.join(missing)} not found. The new protocol needs them: get them from "
            "https://github.com/zhunzhong07/person-re-ranking (evaluation/data/CUHK03)"
        )
