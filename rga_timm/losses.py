"""The paper's loss, identity classification and batch-hard triplets; and distillation.

Features are gathered from all ranks, so that a distributed step equals that of a single process.
The parts of the paper's loss are pytorch-metric-learning's and torch's.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor, nn
from torch.nn import functional as F


class LossParts(NamedTuple):
    """Scalars that :class:`ReidLoss` returns."""

    loss: Tensor  # to call ``backward`` on
    cross_entropy: Tensor  # on this rank's images, unweighted
    triplet: Tensor  # on all ranks' images, unweighted


class ReidLoss(nn.Module):
    """Cross-entropy with label smoothing, plus batch-hard triplet loss.

    Zhang et al., CVPR 2020, section 4.1. The triplet loss is that of Hermans et al., `In Defense of
    the Triplet Loss for Person Re-Identification`, 2017: each anchor with its farthest positive and
    nearest negative in the batch (over all ranks), Euclidean distance of un-normalised features,
    mean over all anchors, also those without loss.

    Args:
        smoothing: Label smoothing of the cross-entropy, in [0, 1).
        margin: Of the triplet loss, in units of feature distance.
        triplet_weight: Weight of the triplet loss beside the cross-entropy; 0 leaves it out.
    """

    def __init__(
        self, smoothing: float = 0.1, margin: float = 0.3, triplet_weight: float = 1.0
    ) -> None:
        super().__init__()
        distance = LpDistance(p=2, normalize_embeddings=False)
        self.cross_entropy = nn.CrossEntropyLoss(label_smoothing=smoothing)
        self.triplet = TripletMarginLoss(margin=margin, distance=distance, reducer=MeanReducer())
        self.miner = BatchHardMiner(distance=distance)
        self.triplet_weight = triplet_weight

    def forward(self, logits: Tensor, pooled: Tensor, labels: Tensor) -> LossParts:
        """Compute the loss of this rank's batch.

        Args:
            logits: (B, classes) of the classifier after the neck.
            pooled: (B, C) before the neck.
            labels: (B,) int64 in [0, classes).
        """
        cross_entropy = self.cross_entropy(logits.float(), labels)
        if not self.triplet_weight:
            return LossParts(cross_entropy, cross_entropy.detach(), torch.zeros_like(cross_entropy))
        # float32 at least: the distance of close features is a difference of large squares.
        features, all_labels = gather_batch(pooled.float(), labels)
        triplet = self.triplet(features, all_labels, self.miner(features, all_labels))
        # Every rank computes the whole triplet loss, with gradients for its own features alone.
        # DistributedDataParallel averages the ranks' gradients; the factor turns that into a sum.
        loss = cross_entropy + self.triplet_weight * world_size() * triplet
        return LossParts(loss, cross_entropy.detach(), triplet.detach())


class DistillationParts(NamedTuple):
    """Scalars that :class:`DistillationLoss` returns."""

    loss: Tensor  # to call ``backward`` on
    similarity: Tensor  # on all ranks' images, unweighted
    projection: Tensor  # on this rank's images, unweighted


class DistillationLoss(nn.Module):
    """Teach a network the features of another one, of any width.

    Two losses. The similarities of the batch's images are to be the teacher's: the mean squared
    difference of the cosines of all pairs (after Tung and Mori, `Similarity-Preserving Knowledge
    Distillation`, ICCV 2019, whose similarities are normalised by row). And a linear projection of
    the feature is to have the direction of the teacher's: one minus their cosine (after Romero et
    al., `FitNets`, ICLR 2015, with a Euclidean distance).

    Args:
        similarity_weight: Weight of the first loss; 0 leaves it out.
        projection_weight: Weight of the second loss; 0 leaves it out.
    """

    def __init__(self, similarity_weight: float = 20.0, projection_weight: float = 5.0) -> None:
        super().__init__()
        self.similarity_weight = similarity_weight
        self.projection_weight = projection_weight

    def forward(
        self, features: Tensor, projected: Tensor | None, teacher: Tensor
    ) -> DistillationParts:
        """Compute the loss of this rank's batch.

        Args:
            features: (B, C) of the network that learns.
            projected: (B, D), their projection; None if the second loss is left out.
            teacher: (B, D) of the teacher for the same images.
        """
        similarity = projection = features.new_zeros((), dtype=torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            if self.similarity_weight:
                own, others = F.normalize(features.float()), F.normalize(teacher.float())
                own, others = gather_batch(own, others)
                pairs = ~torch.eye(len(own), dtype=torch.bool, device=own.device)
                similarity = F.mse_loss((own @ own.T)[pairs], (others @ others.T)[pairs])
            if projected is not None:
                projection = (1 - F.cosine_similarity(projected.float(), teacher.float())).mean()
        # The factor as in ReidLoss: the similarities are those of all ranks.
        loss = self.similarity_weight * world_size() * similarity
        loss = loss + self.projection_weight * projection
        return DistillationParts(loss, similarity.detach(), projection.detach())


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_batch(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return all ranks' (B, C) features and (B, ...) labels, rank after rank; B is the same on all.

    Gradients flow to this rank's features.
    """
    if world_size() == 1:
        return features, labels
    all_features, all_labels = (
        [torch.empty_like(own) for _ in range(world_size())] for own in (features, labels)
    )
    dist.all_gather(all_features, features.detach().contiguous())
    dist.all_gather(all_labels, labels.contiguous())
    all_features[dist.get_rank()] = features
    return torch.cat(all_features), torch.cat(all_labels)
