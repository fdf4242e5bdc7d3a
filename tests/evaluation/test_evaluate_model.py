from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rga_timm.evaluation import Compute, Protocol, evaluate, evaluate_model

COMPUTE = Compute(progress=False)
PROTOCOL = Protocol(
    img_size=(2, 1), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3, metric="euclidean"
)


class MeanColour(nn.Module):
    """The smallest model: an image's feature is its mean colour."""

    def forward_features(self, x: Tensor) -> Tensor:
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x.mean((2, 3))


def loader(seed: int, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    images = torch.randn(len(targets), 3, 2, 1, generator=torch.Generator().manual_seed(seed))
    return list(zip(images.split(4), targets.split(4), strict=True))


def features_of(batches: list[tuple[Tensor, Tensor]]) -> np.ndarray:
    return torch.cat([images for images, _ in batches]).mean((2, 3)).numpy()


QUERY = torch.tensor([[1, 1], [2, 1], [3, 1], [4, 1], [5, 1]])
GALLERY = torch.tensor([[pid, 2] for pid in (1, 2, 3, 4, 5, 0, 6)] * 3)


@pytest.mark.parametrize("single_gallery_shot", [False, True])
def test_the_protocol_says_which_cmc(single_gallery_shot: bool) -> None:
    query, gallery = loader(0, QUERY), loader(1, GALLERY)
    protocol = dataclasses.replace(PROTOCOL, single_gallery_shot=single_gallery_shot)
    found = evaluate_model(MeanColour(), query, gallery, protocol, compute=COMPUTE)
    options = {"metric": "euclidean", "single_gallery_shot": single_gallery_shot}
    features = features_of(query), features_of(gallery)
    expected = evaluate(features[0], *QUERY.T, features[1], *GALLERY.T, **options)
    np.testing.assert_allclose(found.cmc, expected.cmc)
    other = evaluate(
        features[0],
        *QUERY.T,
        features[1],
        *GALLERY.T,
        metric="euclidean",
        single_gallery_shot=not single_gallery_shot,
    )
    assert not np.allclose(found.cmc, other.cmc)


def test_tracklets_are_ranked_by_their_mean_features() -> None:
    numbers = torch.arange(len(GALLERY)) % 7  # a tracklet a person
    query, gallery = loader(0, QUERY), loader(1, torch.cat([GALLERY, numbers[:, None]], 1))
    found = evaluate_model(MeanColour(), query, gallery, PROTOCOL, compute=COMPUTE)
    means = features_of(gallery).reshape(3, 7, 3).mean(axis=0)
    expected = evaluate(features_of(query), *QUERY.T, means, *GALLERY[:7].T, metric="euclidean")
    assert found.mAP == expected.mAP
    assert found.first_match_rank.tolist() == expected.first_match_rank.tolist()
    assert (
        found.mAP
        != evaluate(
            features_of(query), *QUERY.T, features_of(gallery), *GALLERY.T, metric="euclidean"
        ).mAP
    )
