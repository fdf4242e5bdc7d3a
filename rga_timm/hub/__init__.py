"""Checkpoints in the Hugging Face Hub's layout: packed, described, checked, listed, published."""

from rga_timm.hub.code_version import code_version
from rga_timm.hub.listing import CheckpointTable, ListedCheckpoint, list_checkpoints
from rga_timm.hub.manifest import check_manifest, list_in_manifest
from rga_timm.hub.pretrained import read_reid, save_pretrained, takes_img_size
from rga_timm.hub.publish.card import format_card
from rga_timm.hub.publish.folder import (
    MAX_BYTES,
    check_checkpoint,
    check_tag,
    copy_for_repository,
    pack_checkpoint,
)
from rga_timm.hub.publish.golden import golden_embedding, golden_image
from rga_timm.hub.publish.push import push_checkpoint
from rga_timm.weights import WeightsNotFoundError, read_manifest, sha256_of, weights_folder

__all__ = [
    "MAX_BYTES",
    "CheckpointTable",
    "ListedCheckpoint",
    "WeightsNotFoundError",
    "check_checkpoint",
    "check_manifest",
    "check_tag",
    "code_version",
    "copy_for_repository",
    "format_card",
    "golden_embedding",
    "golden_image",
    "list_checkpoints",
    "list_in_manifest",
    "pack_checkpoint",
    "push_checkpoint",
    "read_manifest",
    "read_reid",
    "save_pretrained",
    "sha256_of",
    "takes_img_size",
    "weights_folder",
]
