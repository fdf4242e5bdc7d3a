"""What makes a score mean something else than it seems to: warnings that go with a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rga_timm.data import ReidSplits
from rga_timm.data.splits import DISTRACTOR_PID
from rga_timm.evaluation.embedding.embed import Embeddings
from rga_timm.evaluation.ranking.matches import MatchCounts

# Users' own data: their pids are numbers of names in a list, which change with the list.
_NUMBERED_BY_THEIR_LISTS = ("folder", "table", "hf")

# Measured on the embedded data at 96x48. Untrained ResNets and RGA-ResNets: spread 0.19 to 0.25,
# separation 0.0 to 0.1, effective rank 120 to 275. `rga_resnet18` trained by the default recipe:
# spread 1.14, separation 3.2, rank 260; its feature before the neck, which ranks as well (mAP 71.5
# and 69.6): spread 0.25, separation 3.0. So the spread alone would suspect features that work, all
# positive and with a large mean; only with the separation does it tell. Collapsed features have
# none of the three.
MIN_SPREAD = 0.3
MIN_SEPARATION = 1.0
MIN_RANK = 2.0
_SAMPLE = 1000  # queries and gallery images that similarities are looked at of
_FEW = 10  # features of fewer images or dimensions have no spread to speak of


def diagnose(
    splits: ReidSplits,
    query: Embeddings,
    gallery: Embeddings,
    *,
    metric: str = "cosine",
    trained_on: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Everything that should be known of a test before its scores are believed.

    Args:
        splits: What is tested on.
        query: Its queries' features.
        gallery: Its gallery's.
        metric: By which they are ranked.
        trained_on: What the model says that it was trained on, as `describe_training` writes it.

    Returns:
        A sentence or two for each finding; none for a test as it should be.
    """
    return [
        *train_test_overlap(splits, trained_on),
        *queries_without_match(query, gallery, has_cameras=splits.has_cameras),
        *collapsed_features(query, gallery, metric=metric),
    ]


def describe_training(splits: ReidSplits) -> dict[str, Any]:
    """What a model is to record of a data set that it is trained on.

    Returns:
        `ReidSplits.describe`, and as `train_pids` whom it holds, as in ``"2..7,10"``; None where
        such a number means somebody else in the test splits.
    """
    pids = _write_numbers(np.unique(splits.train.pids).tolist())
    return {**splits.describe(), "train_pids": pids if splits.same_numbering else None}


def same_training_people(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two models were trained on the same people, so that their labels mean the same.

    Args:
        a: What one of them says that it was trained on, as `describe_training` writes it, in the
            order of its labels.
        b: What the other says. Of data sets that do not say on whom, it is not known: False.
    """

    def same(source: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        if source.get("fingerprint") and source.get("fingerprint") == other.get("fingerprint"):
            return True
        base, pids = _base(source), source.get("train_pids")
        same_pids = pids is not None and pids == other.get("train_pids")
        return same_pids and base == _base(other) and base not in _NUMBERED_BY_THEIR_LISTS

    return bool(a) and len(a) == len(b) and all(map(same, a, b))


def train_test_overlap(splits: ReidSplits, trained_on: Sequence[Mapping[str, Any]]) -> list[str]:
    """Find people who were trained on and are tested on.

    Pids are compared where they mean the same people: in data sets of the same name, whatever
    their options, such as partitions. Users' own data (`folder`, `table`, `hf`) of one name have
    nothing else in common; there they are compared if the images and people are the same. What
    numbers train and test apart (MSMT17) has nobody in both. The distractor, pid 0, is nobody.
    """
    if not splits.same_numbering or not trained_on:
        return []
    tested = {
        "queries": set(splits.query.pids.tolist()) - {DISTRACTOR_PID},
        "the gallery": set(splits.gallery.pids.tolist()) - {DISTRACTOR_PID},
    }
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
            some = ", ".join(map(str, shared[:5]))
            findings.append(
                f"the model was trained on {where} (such as {some}), in {name}: the scores are "
                "too good"
            )
    return findings


def queries_without_match(
    query: Embeddings, gallery: Embeddings, *, has_cameras: bool = True
) -> list[str]:
    """Count the queries that are left out of all scores, as nothing is left to be found."""
    matches = MatchCounts.of(query.pids, query.camids, gallery.pids, gallery.camids)
    left_out = matches.absent + matches.same_camera
    if not left_out:
        return []
    reasons = matches.reasons(has_cameras)
    return [f"{left_out} of {matches.queries} queries do not count: {reasons}"]


def collapsed_features(
    query: Embeddings, gallery: Embeddings, *, metric: str = "cosine", seed: int = 0
) -> list[str]:
    """Find features that do not tell people apart, as of a network that is untrained or collapsed.

    Looked at is a sample of 1,000 queries and 1,000 gallery images, which depends on the seed. Of
    data sets with fewer than ten of either, or features of fewer than ten numbers, nothing is said.
    The spread of cosines matters where these are the `metric`.
    """
    if min(*query.features.shape, *gallery.features.shape) < _FEW:
        return []
    generator = torch.Generator().manual_seed(seed)
    q, g = (
        torch.randperm(len(images), generator=generator)[:_SAMPLE].numpy()
        for images in (query, gallery)
    )
    a, b = (
        F.normalize(images.features[rows].cpu().double(), dim=1)
        for images, rows in ((query, q), (gallery, g))
    )
    findings = []
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
    """How far apart two means are, in standard deviations (d'); 0 if there is too little to say."""
    if min(len(matches), len(others)) < _FEW:
        return 0.0
    deviation = np.sqrt((matches.var() + others.var()) / 2)
    # What deviates in equal cosines is rounding.
    return float((matches.mean() - others.mean()) / max(deviation, 1e-9))


def effective_rank(features: Tensor) -> float:
    """In how many directions features (n, D) vary: the exponential of the spectrum's entropy.

    From 1 to min(n - 1, D); 0 of features that are all the same. Roy and Vetterli, The effective
    rank: a measure of effective dimensionality, EUSIPCO 2007; of the features less their mean.
    """
    spectrum = torch.linalg.svdvals(features - features.mean(0))
    # What is left of equal features is rounding.
    noise = torch.finfo(features.dtype).eps * len(features) * features.norm()
    spectrum = spectrum[spectrum > noise]
    if not len(spectrum):
        return 0.0
    shares = spectrum / spectrum.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def _base(source: Mapping[str, Any]) -> str:
    """The name of a data set without its options: `viper` of `viper:split=3`."""
    return str(source.get("name")).partition(":")[0]


def _write_numbers(numbers: Iterable[int]) -> str:
    """Ascending whole numbers, those in a row as one range: ``1..3,7``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{low}..{high}" if high > low else str(low) for low, high in ranges)


def _read_numbers(text: str) -> list[int]:
    """What `_write_numbers` wrote."""
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("..")
        numbers += range(int(low), int(high or low) + 1)
    return numbers
