"""The same as `rga-timm demo`, for those who work in a clone."""

from rga_timm.cli import main

main("demo")
