"""The same as `rga-timm embed`, for those who work in a clone."""

from rga_timm.cli import main

main("embed")
