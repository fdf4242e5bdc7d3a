"""Tracklets: consecutive images of one person under one camera, which are tested as one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rga_timm.evaluation.distributed import gather_rows


class TrackletMeans:
    """The mean feature of each tracklet, from batches of images in any order.

    Features are not normalised before they are averaged, as in video baselines (MARS, Zheng et al.,
    ECCV 2016). Only a float64 sum for each tracklet is kept, so that memory does not grow with the
    images, and the batches affect the last bit at most.
    """

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}  # by the tracklet's number, in order of appearance
        self._counts: dict[int, int] = {}
        self._ids: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add a batch: features (B, D), targets (B, 3) [person id, camera id, tracklet number]."""
        features, targets = features.cpu().double(), targets.cpu()
        for pid, camid, number in dict.fromkeys(map(tuple, targets.tolist())):
            members = targets[:, 2] == number
            self._add(number, (pid, camid), features[members].sum(0), int(members.sum()))

    def _add(self, number: int, ids: tuple[int, int], total: Tensor, count: int) -> None:
        if self._ids.setdefault(number, ids) != ids:
            raise ValueError(
                f"images of tracklet {number} are of several persons or cameras: person and camera "
                f"{self._ids[number]}, and {ids}"
            )
        self._sums[number] = self._sums[number] + total if number in self._sums else total
        self._counts[number] = self._counts.get(number, 0) + count

    def gathered(self, distributed: bool) -> TrackletMeans:
        """Join those of all processes, in the order of the processes."""
        if not distributed:
            return self
        totals = [*self._sums.values()]
        # A process without tracklets does not know how wide the features are.
        width = gather_rows(np.array([len(t) for t in totals[:1]], dtype=np.int64), True)[0]
        rows = [[number, self._counts[number], *self._ids[number]] for number in self._sums]
        numbers = gather_rows(np.array(rows, dtype=np.int64).reshape(-1, 4), True)
        own_sums = np.array([t.numpy() for t in totals], dtype=np.float64).reshape(-1, width)
        sums = torch.from_numpy(gather_rows(own_sums, True))
        whole = TrackletMeans()
        for (number, count, *ids), total in zip(numbers.tolist(), sums, strict=True):
            whole._add(number, (ids[0], ids[1]), total, count)
        return whole

    def result(self) -> tuple[Tensor, np.ndarray]:
        """Return means (n, D), with person and camera ids (n, 2), in order of appearance."""
        counts = torch.tensor(list(self._counts.values()), dtype=torch.float64)
        features = torch.stack(list(self._sums.values())) / counts[:, None]
        return features.float(), np.array(list(self._ids.values()), dtype=np.int64)
