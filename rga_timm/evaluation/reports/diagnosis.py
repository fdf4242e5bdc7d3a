"""Find reasons to doubt a score: the warnings of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rga_timm.data import ReidSplits
from rga_timm.data.matches import MatchCounts
from rga_timm.data.splits import DISTRACTOR_PID
from rga_timm.evaluation.embedding.embed import Embeddings

# Users' own data, whose pids are positions in a list, which change with the list.
_NUMBERED_BY_THEIR_LISTS = ("folder", "table", "hf")

# Measured on `pedestrians` at 96x48. Untrained ResNets and RGA-ResNets: spread 0.19 to 0.25,
# separation 0.0 to 0.1, effective rank 120 to 275. `rga_resnet18` trained by the default recipe:
# spread 1.14, separation 3.2, rank 260; its feature before the neck, which ranks as well (mAP 71.5
# and 69.6): spread 0.25, separation 3.0. So a small spread alone is no sign of bad features: the
# separation must be small too. Collapsed features have none of the three.
MIN_SPREAD = 0.3
MIN_SEPARATION = 1.0
MIN_RANK = 2.0
_SAMPLE = 1000  # queries and gallery images whose similarities are computed
_FEW = 10  # the spread of fewer images or dimensions says nothing


def diagnose(
    splits: ReidSplits,
    query: Embeddings,
    gallery: Embeddings,
    *,
    metric: str = "cosine",
    trained_on: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Find reasons to doubt the scores of a test: a sentence or two for each.

    `trained_on` is the training data of the model, as from `describe_training`.
    """
    return [
        *train_test_overlap(splits, trained_on),
        *queries_without_match(query, gallery, has_cameras=splits.has_cameras),
        *collapsed_features(query, gallery, metric=metric),
    ]


def describe_training(splits: ReidSplits) -> dict[str, Any]:
    """Describe the training data that a model is to record, by `ReidSplits.describe` and pids.

    `train_pids` are as in ``"2..7,10"``; None if the same pid is another person in the test splits.
    """
    pids = _write_numbers(np.unique(splits.train.pids).tolist())
    return {**splits.describe(), "train_pids": pids if splits.same_numbering else None}


def same_training_people(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether two models were trained on the same people, so that labels mean the same.

    `a` and `b` are their training data, as from `describe_training`, in the order of the labels.
    Without a fingerprint or pids in them it is False.
    """

    def same(source: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        if source.get("fingerprint") and source.get("fingerprint") == other.get("fingerprint"):
            return True
        base, pids = _base(source), source.get("train_pids")
        if pids is None or pids != other.get("train_pids"):
            return False
        return base == _base(other) and base not in _NUMBERED_BY_THEIR_LISTS

    return bool(a) and len(a) == len(b) and all(map(same, a, b))


def train_test_overlap(splits: ReidSplits, trained_on: Sequence[Mapping[str, Any]]) -> list[str]:
    """Find people in both the training and the test data.

    Pids are compared if they mean the same people: in data sets of the same name, with any options.
    Users' own data (`folder`, `table`, `hf`) are compared only if the images and people are the
    same. Data sets that number train and test separately (MSMT17) have no overlap. The distractor,
    pid 0, is no person.
    """
    if not splits.same_numbering or not trained_on:
        return []
    readers = {"queries": splits.query, "the gallery": splits.gallery}
    tested = {name: {*of.pids.tolist()} - {DISTRACTOR_PID} for name, of in readers.items()}
    base, fingerprint = _base({"name": splits.name}), splits.fingerprint
    findings = []
    for source in trained_on:
        name = str(source.get("name"))
        same_data = source.get("fingerprint") == fingerprint
        if not same_data and (_base(source) != base or base in _NUMBERED_BY_THEIR_LISTS):
            continue
        if same_data:
            trained = set(splits.train.pids.tolist())
        elif "train_pids" in source:
            trained = set(_read_numbers(source["train_pids"] or ""))
        else:
            findings.append(
                f"the model was trained on {name} and does not say on whom: it was not checked "
                f"whether people of {splits.name} that are tested on are among them"
            )
            continue
        if shared := sorted(trained & set.union(*tested.values())):
            where = " and ".join(
                f"{len(trained & pids)} of the {len(pids)} people of {split}"
                for split, pids in tested.items()
                if trained & pids
            )
            findings.append(
                f"the model was trained on {where} (such as {', '.join(map(str, shared[:5]))}), in "
                f"{name}: the scores are too good"
            )
    return findings


def queries_without_match(
    query: Embeddings, gallery: Embeddings, *, has_cameras: bool = True
) -> list[str]:
    """Count the queries without a match, which do not count."""
    matches = MatchCounts.of(query.pids, query.camids, gallery.pids, gallery.camids)
    if not (left_out := matches.absent + matches.same_camera):
        return []
    reasons = matches.reasons(has_cameras)
    return [f"{left_out} of {matches.queries} queries do not count: {reasons}"]


def collapsed_features(
    query: Embeddings, gallery: Embeddings, *, metric: str = "cosine", seed: int = 0
) -> list[str]:
    """Find features that do not distinguish people, as from an untrained or collapsed network.

    Features that are zero are counted. Then a sample of 1,000 queries and 1,000 gallery images is
    examined, which depends on the seed; there are no findings of fewer than ten images or
    dimensions. Zeros and the spread of cosines are looked at only if these are the `metric`.
    """
    zero = [int((~images.features.any(dim=1)).sum()) for images in (query, gallery)]
    findings = []
    if metric == "cosine" and any(zero):
        findings.append(
            f"{zero[0]} of {len(query)} query features and {zero[1]} of {len(gallery)} gallery "
            "features are zero: they have no direction, and are similar to nothing"
        )
    if min(*query.features.shape, *gallery.features.shape) < _FEW:
        return findings
    generator = torch.Generator().manual_seed(seed)
    q, g = (
        torch.randperm(len(images), generator=generator)[:_SAMPLE].numpy()
        for images in (query, gallery)
    )
    a, b = (F.normalize(f.cpu().double(), dim=1) for f in (query.features[q], gallery.features[g]))
    if metric == "cosine":
        same_person = query.pids[q, None] == gallery.pids[g]
        is_match = same_person & (query.camids[q, None] != gallery.camids[g])
        cosines = (a @ b.T).numpy()
        low, high = np.quantile(cosines, [0.01, 0.99]).tolist()
        separation = _separation(cosines[is_match], cosines[~same_person])
        if high - low < MIN_SPREAD and separation < MIN_SEPARATION:
            findings.append(
                f"similarities crowd together: 98 % of the cosines of queries and gallery images "
                f"lie between {low:.3f} and {high:.3f}, those of the same person hardly above "
                "others. Features of a network that is not trained, or has collapsed, are like this"
            )
    if (rank := effective_rank(b)) < MIN_RANK:
        findings.append(
            f"the gallery's features differ in hardly more than one direction (effective rank "
            f"{rank:.1f} of {b.shape[1]}): the network has collapsed"
        )
    return findings


def _separation(matches: np.ndarray, others: np.ndarray) -> float:
    """Return the distance of two means in standard deviations (d'); 0 for too few values."""
    if min(len(matches), len(others)) < _FEW:
        return 0.0
    deviation = max(np.sqrt((matches.var() + others.var()) / 2), 1e-9)  # less is rounding
    return float((matches.mean() - others.mean()) / deviation)


def effective_rank(features: Tensor) -> float:
    """Compute the effective rank of centred features (n, D): exp of the spectrum's entropy.

    From 1 to min(n - 1, D); 0 if all features are the same. Roy and Vetterli, The effective rank: a
    measure of effective dimensionality, EUSIPCO 2007.
    """
    spectrum = torch.linalg.svdvals(features - features.mean(0))
    noise = torch.finfo(features.dtype).eps * len(features) * features.norm()  # of rounding
    spectrum = spectrum[spectrum > noise]
    if not len(spectrum):
        return 0.0
    shares = spectrum / spectrum.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def _base(source: Mapping[str, Any]) -> str:
    """Return the name of a data set without its options: `viper` of `viper:split=3`."""
    return str(source.get("name")).partition(":")[0]


def _write_numbers(numbers: Iterable[int]) -> str:
    """Format ascending whole numbers with ranges: ``1..3,7``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{low}..{high}" if high > low else str(low) for low, high in ranges)


def _read_numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("..")
        numbers += range(int(low), int(high or low) + 1)
    return numbers
