"""The same as `rga-timm export`, for those who work in a clone."""

from rga_timm.cli import main

main("export")
