"""A page that shows an evaluation: one HTML file, which needs no server and no network."""

from rga_timm.report_page.page import PageOptions, Side, evaluate_side, write_page

__all__ = ["PageOptions", "Side", "evaluate_side", "write_page"]
