"""Evaluate re-identification models: embed images, rank, CMC / mAP / mINP, re-ranking, reports.

Works on any timm model, and on any features: nothing here knows how they were made.
"""

from rga_timm.evaluation.compute import Compute
from rga_timm.evaluation.dataset import check_testable, embed_split, evaluate_dataset
from rga_timm.evaluation.embedding.embed import Embedder, Embeddings, embed
from rga_timm.evaluation.embedding.store import (
    StoredEmbeddings,
    iter_embeddings,
    read_embeddings,
    read_metadata,
    read_stamp,
)
from rga_timm.evaluation.protocol import Protocol
from rga_timm.evaluation.ranking.distance import METRICS
from rga_timm.evaluation.ranking.evaluate import ReidResult, evaluate
from rga_timm.evaluation.ranking.expansion import QueryExpansion, expand_queries, pool_queries
from rga_timm.evaluation.ranking.ranking import Ranking
from rga_timm.evaluation.ranking.rerank import Reranking, k_reciprocal_rerank
from rga_timm.evaluation.ranking.verification import OperatingPoint, Verification, verify
from rga_timm.evaluation.record import ModelRecord, hash_weights
from rga_timm.evaluation.reports.average import (
    average_reports,
    combine_partitions,
    name_of_all_partitions,
)
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
    same_training_people,
    train_test_overlap,
)
from rga_timm.evaluation.reports.from_features import report_embeddings
from rga_timm.evaluation.reports.intervals import bootstrap_interval, paired_difference
from rga_timm.evaluation.reports.report import AP_CONVENTIONS, Report, load_reports, save_reports
from rga_timm.evaluation.reports.tables import (
    format_intervals,
    format_table,
    format_verification,
    log_warnings,
)
from rga_timm.evaluation.stored import evaluate_embeddings, protocol_of

__all__ = [
    "AP_CONVENTIONS", "METRICS", "Compute", "DifferentProtocolsError", "Embedder", "Embeddings",
    "ModelRecord", "OperatingPoint", "Protocol", "QueryExpansion", "Ranking", "ReidResult",
    "Report", "Reranking", "StoredEmbeddings", "Verification", "average_reports",
    "bootstrap_interval", "check_same_protocol", "check_testable", "combine_partitions",
    "describe_training", "diagnose", "embed", "embed_split", "evaluate", "evaluate_dataset",
    "evaluate_embeddings", "expand_queries", "format_card", "format_comparison",
    "format_intervals", "format_table", "format_verification", "hash_weights", "iter_embeddings",
    "k_reciprocal_rerank", "load_reports", "log_warnings", "match_reports",
    "name_of_all_partitions", "paired_difference", "pool_queries", "protocol_of", "read_embeddings",
    "read_metadata", "read_stamp", "report_embeddings", "same_training_people", "save_reports",
    "train_test_overlap", "verify",
]  # fmt: skip
