"""The same as `rga-timm search`, for those who work in a clone."""

from rga_timm.cli import main

main("search")
