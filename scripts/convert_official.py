"""The same as `rga-timm convert-official`, for those who work in a clone."""

from rga_timm.cli import main

main("convert-official")
