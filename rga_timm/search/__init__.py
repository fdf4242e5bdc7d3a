"""Search for people among stored embeddings of any model: an index in LanceDB.

Needs `pip install 'rga-timm[search]'`.
"""

from rga_timm.search.conditions import conditions
from rga_timm.search.index import NPROBES, REFINE_FACTOR, Kind, SearchIndex
from rga_timm.search.rows import check_same_features

__all__ = ["NPROBES", "REFINE_FACTOR", "Kind", "SearchIndex", "check_same_features", "conditions"]
