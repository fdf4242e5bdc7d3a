"""What the lists of a data set show: counts, people in two splits, what cannot be learnt from."""

from collections import defaultdict
from typing import Any

import numpy as np

from ..reader import ReidReader
from ..splits import Counts, ReidSplits
from .finding import Finding, Level

# Up to this share of the identities is usual in large data sets; above, something is wrong.
_USUAL_SHARE = 0.1


def check_counts(splits: ReidSplits) -> list[Finding]:
    """Compare the counts with those published; at most one finding."""
    items: list[dict[str, Any]] = [
        {"split": split, "count": field, "found": ours, "published": theirs}
        for split, published in (splits.published or {}).items()
        for field, ours, theirs in zip(Counts._fields, splits.counts[split], published, strict=True)
        if theirs not in (None, ours)
    ]
    text = f"the counts are not those that {splits.name} was published with"
    fix = (
        "Is it another version of the data set, was it unpacked in full, or are these data of your "
        "own in its layout? Scores do not compare with published ones."
    )
    return [Finding("counts", "warning", text, fix, items)] if items else []


def format_counts(splits: ReidSplits) -> str:
    """Format the counts of each split as a table, "found / published", * where they differ."""
    rows = [["split", *Counts._fields]]
    for split, counts in splits.counts.items():
        published = (splits.published or {}).get(split) or Counts(*[None] * 4)
        rows.append([split])
        for ours, theirs in zip(counts, published, strict=True):
            cell = "-" if ours is None else str(ours)
            if theirs is not None:
                cell += f" / {theirs}" + " *" * (ours != theirs)
            rows[-1].append(cell)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    legend = "found / published; * marks where they differ"
    return "\n".join(lines + [legend] * bool(splits.published))


def check_people(splits: ReidSplits) -> list[Finding]:
    """Check identities and cameras.

    Finds the kinds ``shared_pids``, ``single_images``, ``single_cameras`` and
    ``unmatched_queries``.
    """
    findings = []

    def add(
        *words: str, items: list[dict[str, Any]], total: int, level: Level | None = None
    ) -> None:
        kind, text, fix = words
        usual: Level = "warning" if len(items) > _USUAL_SHARE * total else "note"
        if items:
            text = f"{len(items)} of {total} {text}"
            findings.append(Finding(kind, level or usual, text, fix, items))

    add(
        "shared_pids",
        "train identities are in query or gallery too",
        "If they are the same people, the scores are too good: take them out of one of the two. If "
        "the numbers start again in the test splits, give the test people other numbers.",
        items=[{"pid": pid} for pid in splits.shared_pids()],
        total=len(splits.classes),
        level="warning",
    )
    pids, counts = np.unique(splits.train.pids, return_counts=True)
    add(
        "single_images",
        "train identities have one image",
        "They have no positive pair for the triplet loss: a batch repeats the image. Add images of "
        "them, or leave them out.",
        items=[{"pid": pid} for pid in pids[counts == 1].tolist()],
        total=len(pids),
    )
    seen_by = sorted(_cameras_of(splits.train).items()) if splits.has_cameras else []
    add(
        "single_cameras",
        "train identities are seen by one camera only",
        "What stays the same from camera to camera is not learnt from them. If it is most of them, "
        "is the camera read from the right place?",
        items=[{"pid": pid, "camera": min(seen)} for pid, seen in seen_by if len(seen) == 1],
        total=len(pids),
    )
    cameras = _cameras_of(splits.gallery)
    queries = splits.query.images if cameras else []
    if queries and splits.query.has_tracklets:  # the first image stands for its tracklet
        queries = [queries[i] for i in np.unique(splits.query.tracklets, return_index=True)[1]]
    unmatched: list[dict[str, Any]] = [
        {"path": image.path, "pid": image.pid, "camera": image.camid}
        for image in queries
        if not cameras[image.pid] - {image.camid}
    ]
    add(
        "unmatched_queries",
        "queries have no match in the gallery under another camera",
        "They are not counted. Add such images to the gallery, or take the queries out. If it is "
        "all of them, are pids and cameras numbered alike in both?",
        items=unmatched,
        total=len(queries),
        level="error" if len(unmatched) == len(queries) else None,
    )
    return findings


def _cameras_of(reader: ReidReader) -> defaultdict[int, set[int]]:
    """Collect the cameras that see each person."""
    cameras: defaultdict[int, set[int]] = defaultdict(set)
    for image in reader.images:
        cameras[image.pid].add(image.camid)
    return cameras
