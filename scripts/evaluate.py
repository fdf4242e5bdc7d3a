"""The same as `rga-timm evaluate`, for those who work in a clone."""

from rga_timm.cli import main

main("evaluate")
