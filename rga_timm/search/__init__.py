"""Search for people among stored embeddings: an index in LanceDB.

Needs `pip install 'rga-timm[search]'`. Works on the embeddings of any model: nothing here knows how
they were made.
"""

from rga_timm.search.filters import where_clause
from rga_timm.search.index import NPROBES, REFINE_FACTOR, Kind, SearchIndex
from rga_timm.search.results import format_results, result_sheet, save_results
from rga_timm.search.rows import check_same_features

__all__ = [
    "NPROBES",
    "REFINE_FACTOR",
    "Kind",
    "SearchIndex",
    "check_same_features",
    "format_results",
    "result_sheet",
    "save_results",
    "where_clause",
]
