"""List the checkpoints that timm.create_model can load, with their scores and sources.

rga-timm checkpoints
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rga_timm.cli.options import create_parser
from rga_timm.hub import CheckpointTable, list_checkpoints


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    return create_parser("checkpoints", __doc__)


def main(argv: Sequence[str] | None = None) -> CheckpointTable:
    """Print the table, and return it."""
    get_parser().parse_args(argv)
    table = list_checkpoints()
    print(table)
    return table
