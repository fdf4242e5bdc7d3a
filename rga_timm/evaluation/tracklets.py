"""Tracklets: images of one person in a row under one camera, which are tested as one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class TrackletMeans:
    """The mean feature of each tracklet, from batches of images in any order.

    Features are averaged as they are, not normalised: mean pooling over time, as in the video
    literature's baselines (MARS, Zheng et al., ECCV 2016, compares it with the maximum). Only a sum
    a tracklet is kept, in float64, so that how the images fall into batches changes nothing but the
    last bit; memory grows with the tracklets, not with the images.
    """

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}  # by the tracklet's number, in order of appearance
        self._counts: dict[int, int] = {}
        self._ids: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add a batch.

        Args:
            features: (B, D).
            targets: (B, 3) [person id, camera id, tracklet number].

        Raises:
            ValueError: images of one tracklet have several persons or cameras.
        """
        features, targets = features.cpu().double(), targets.cpu()
        for pid, camid, number in dict.fromkeys(map(tuple, targets.tolist())):
            if self._ids.setdefault(number, (pid, camid)) != (pid, camid):
                raise ValueError(
                    f"images of tracklet {number} are of several persons or cameras: person and "
                    f"camera {self._ids[number]}, and {(pid, camid)}"
                )
            members = targets[:, 2] == number
            total = features[members].sum(0)
            self._sums[number] = self._sums[number] + total if number in self._sums else total
            self._counts[number] = self._counts.get(number, 0) + int(members.sum())

    def result(self) -> tuple[Tensor, np.ndarray]:
        """The means and whose they are, in the order in which the tracklets first appeared.

        Returns:
            (n, D) float32 features, (n, 2) int64 person and camera ids, of n > 0 tracklets.
        """
        counts = torch.tensor(list(self._counts.values()), dtype=torch.float64)
        features = torch.stack(list(self._sums.values())) / counts[:, None]
        return features.float(), np.array(list(self._ids.values()), dtype=np.int64)
