"""The same as `rga-timm check-data`, for those who work in a clone."""

from rga_timm.cli import main

main("check-data")
