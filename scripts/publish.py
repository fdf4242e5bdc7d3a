"""The same as `rga-timm publish`, for those who work in a clone."""

from rga_timm.cli import main

main("publish")
