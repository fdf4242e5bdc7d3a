"""The same as `rga-timm extract-cuhk03`, for those who work in a clone."""

from rga_timm.cli import main

main("extract-cuhk03")
