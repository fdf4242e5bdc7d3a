"""Evaluate re-identification models: embed images, rank, CMC / mAP / mINP, re-ranking, reports.

Works on any timm model, and on any features: nothing here knows how they were made.
"""

from rga_timm.evaluation.average import average_reports, name_of_all_partitions
from rga_timm.evaluation.dataset import check_testable, evaluate_dataset
from rga_timm.evaluation.embed import Embedder, Embeddings, embed
from rga_timm.evaluation.expansion import QueryExpansion, expand_queries, pool_queries
from rga_timm.evaluation.model import evaluate_model
from rga_timm.evaluation.ranking import METRICS, ReidResult, evaluate
from rga_timm.evaluation.report import (
    AP_CONVENTIONS,
    Protocol,
    Report,
    format_table,
    load_reports,
    save_reports,
)
from rga_timm.evaluation.rerank import Reranking, k_reciprocal_rerank
from rga_timm.evaluation.store import (
    StoredEmbeddings,
    iter_embeddings,
    read_embeddings,
    read_stamp,
)
from rga_timm.evaluation.stored import evaluate_embeddings
from rga_timm.evaluation.verification import OperatingPoint, Verification, verify

__all__ = [
    "AP_CONVENTIONS",
    "METRICS",
    "Embedder",
    "Embeddings",
    "OperatingPoint",
    "Protocol",
    "QueryExpansion",
    "ReidResult",
    "Report",
    "Reranking",
    "StoredEmbeddings",
    "Verification",
    "average_reports",
    "check_testable",
    "embed",
    "evaluate",
    "evaluate_dataset",
    "evaluate_embeddings",
    "evaluate_model",
    "expand_queries",
    "format_table",
    "iter_embeddings",
    "k_reciprocal_rerank",
    "load_reports",
    "name_of_all_partitions",
    "pool_queries",
    "read_embeddings",
    "read_stamp",
    "save_reports",
    "verify",
]
