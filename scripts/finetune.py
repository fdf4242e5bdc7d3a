"""The same as `rga-timm finetune`, for those who work in a clone."""

from rga_timm.cli import main

main("finetune")
