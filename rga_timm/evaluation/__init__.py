"""Evaluate re-identification models: embed images, rank, CMC / mAP / mINP, re-ranking, reports.

Works on any timm model, and on any features: nothing here knows how they were made.
"""

from rga_timm.evaluation.dataset import check_testable, evaluate_dataset, evaluate_protocols
from rga_timm.evaluation.embedding.embed import Embedder, Embeddings, embed
from rga_timm.evaluation.embedding.store import (
    StoredEmbeddings,
    iter_embeddings,
    read_embeddings,
    read_stamp,
)
from rga_timm.evaluation.embedding.weights_hash import hash_weights
from rga_timm.evaluation.model import evaluate_model
from rga_timm.evaluation.ranking.distance import METRICS
from rga_timm.evaluation.ranking.evaluate import ReidResult, evaluate
from rga_timm.evaluation.ranking.expansion import QueryExpansion, expand_queries, pool_queries
from rga_timm.evaluation.ranking.rerank import Reranking, k_reciprocal_rerank
from rga_timm.evaluation.ranking.verification import OperatingPoint, Verification, verify
from rga_timm.evaluation.reports.average import average_reports, name_of_all_partitions
from rga_timm.evaluation.reports.card import format_card
from rga_timm.evaluation.reports.compare import (
    DifferentProtocolsError,
    check_same_protocol,
    format_comparison,
    match_reports,
)
from rga_timm.evaluation.reports.diagnosis import (
    describe_training,
    diagnose,
    people_trained_on,
    same_people_trained_on,
)
from rga_timm.evaluation.reports.intervals import bootstrap_interval, paired_difference
from rga_timm.evaluation.reports.report import (
    AP_CONVENTIONS,
    Protocol,
    Report,
    format_intervals,
    format_table,
    format_verification,
    load_reports,
    save_reports,
)
from rga_timm.evaluation.stored import evaluate_embeddings, protocol_of

__all__ = [
    "AP_CONVENTIONS",
    "METRICS",
    "DifferentProtocolsError",
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
    "bootstrap_interval",
    "check_same_protocol",
    "check_testable",
    "describe_training",
    "diagnose",
    "embed",
    "evaluate",
    "evaluate_dataset",
    "evaluate_embeddings",
    "evaluate_model",
    "evaluate_protocols",
    "expand_queries",
    "format_card",
    "format_comparison",
    "format_intervals",
    "format_table",
    "format_verification",
    "hash_weights",
    "iter_embeddings",
    "k_reciprocal_rerank",
    "load_reports",
    "match_reports",
    "name_of_all_partitions",
    "paired_difference",
    "people_trained_on",
    "pool_queries",
    "protocol_of",
    "read_embeddings",
    "read_stamp",
    "same_people_trained_on",
    "save_reports",
    "verify",
]
