"""The same as `rga-timm report`, for those who work in a clone."""

from rga_timm.cli import main

main("report")
