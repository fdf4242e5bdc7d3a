"""The same as `rga-timm ablation`, for those who work in a clone."""

from rga_timm.cli import main

main("ablation")
