"""Which queries count, and why the others do not."""

from collections import Counter
from typing import NamedTuple

import numpy as np

JUNK_PID = -1  # Market-1501's: neither a right nor a wrong answer, so such images are left out


class MatchCounts(NamedTuple):
    """Queries by whether their person is in the gallery under another camera."""

    counted: int  # with such a match
    absent: int  # their person is not in the gallery
    same_camera: int  # their person is in the gallery under the query's own camera only
    one_camera: int | None = None  # the camera, if all queries and gallery images have the same

    @classmethod
    def of(
        cls, query_pids: np.ndarray, query_camids: np.ndarray,
        gallery_pids: np.ndarray, gallery_camids: np.ndarray,
    ) -> "MatchCounts":  # fmt: skip
        """Count, from (Q,) and (G,) ids; the gallery's junk does not count."""
        kept = gallery_pids != JUNK_PID
        gallery_pids, gallery_camids = gallery_pids[kept], gallery_camids[kept]
        images = Counter(gallery_pids.tolist())
        beside = Counter(zip(gallery_pids.tolist(), gallery_camids.tolist(), strict=True))
        queries = list(zip(query_pids.tolist(), query_camids.tolist(), strict=True))
        absent = sum(not images[pid] for pid, _ in queries)
        same = sum(bool(images[pid]) and images[pid] == beside[pid, cam] for pid, cam in queries)
        cameras = {*query_camids.tolist(), *gallery_camids.tolist()}
        counted, camera = len(queries) - absent - same, cameras.pop() if len(cameras) == 1 else None
        return cls(counted, absent=absent, same_camera=same, one_camera=camera)

    @property
    def queries(self) -> int:
        """The number of all queries."""
        return self.counted + self.absent + self.same_camera

    def reasons(self, has_cameras: bool = True) -> str:
        """Say why queries do not count, and what to do if none does.

        Without `has_cameras` each image has a camera id of its own.
        """
        if self.one_camera is not None and self.same_camera:
            return (
                f"all queries and gallery images are of camera {self.one_camera}, and a match is "
                "an image of another camera. Where cameras are not known, give each image a "
                "camera id of its own"
            )
        reasons = []
        if self.absent:
            reasons.append(f"the person of {self.absent} is not in the gallery")
        if self.same_camera:
            only = "under the query's own camera" if has_cameras else "as the query itself"
            reasons.append(f"the person of {self.same_camera} is in the gallery only {only}")
        end = "" if self.counted else ". Are these the pids and camids of the same data set?"
        return ", ".join(reasons) + end
