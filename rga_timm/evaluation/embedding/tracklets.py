"""Tracklets: images of one person in a row under one camera, which are tested as one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rga_timm.evaluation.distributed import gather_rows


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
        """Add a batch: features (B, D), targets (B, 3) [person id, camera id, tracklet number].

        Raises:
            ValueError: Images of one tracklet have several persons or cameras.
        """
        features, targets = features.cpu().double(), targets.cpu()
        for pid, camid, number in dict.fromkeys(map(tuple, targets.tolist())):
            members = targets[:, 2] == number
            self._add(number, (pid, camid), features[members].sum(0), int(members.sum()))

    def _add(self, number: int, ids: tuple[int, int], total: Tensor, count: int) -> None:
        if self._ids.setdefault(number, ids) != ids:
            raise ValueError(
                f"images of tracklet {number} are of several persons or cameras: person and "
                f"camera {self._ids[number]}, and {ids}"
            )
        self._sums[number] = self._sums[number] + total if number in self._sums else total
        self._counts[number] = self._counts.get(number, 0) + count

    def gathered(self, distributed: bool) -> TrackletMeans:
        """Those of all processes, in the order of the processes; a tracklet's parts are joined."""
        if not distributed:
            return self
        width = gather_rows(
            np.array([len(s) for s in list(self._sums.values())[:1]], dtype=np.int64), distributed
        )
        rows = [[number, self._counts[number], *self._ids[number]] for number in self._sums]
        numbers = np.array(rows, dtype=np.int64).reshape(-1, 4)
        sums = (
            torch.stack([*self._sums.values()]) if rows else torch.empty(0, int(width[0])).double()
        )
        whole = TrackletMeans()
        for (number, count, pid, camid), total in zip(
            gather_rows(numbers, distributed).tolist(),
            torch.from_numpy(gather_rows(sums.numpy(), distributed)),
            strict=True,
        ):
            whole._add(number, (pid, camid), total, count)
        return whole

    def result(self) -> tuple[Tensor, np.ndarray]:
        """Means (n, D), with person and camera ids (n, 2), in order of appearance."""
        counts = torch.tensor(list(self._counts.values()), dtype=torch.float64)
        features = torch.stack(list(self._sums.values())) / counts[:, None]
        return features.float(), np.array(list(self._ids.values()), dtype=np.int64)
