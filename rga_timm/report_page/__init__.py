"""A page that shows an evaluation: one HTML file, which needs no server and no network."""

from rga_timm.report_page.evaluate import evaluate_to_page
from rga_timm.report_page.page import PageOptions, write_page

__all__ = ["PageOptions", "evaluate_to_page", "write_page"]
