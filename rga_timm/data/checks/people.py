"""What the lists of a data set tell: counts, people in two splits, what cannot be learnt from."""

from collections import defaultdict
from typing import Any

import numpy as np

from ..reader import ReidReader
from ..splits import Counts, ReidSplits
from .finding import Finding, Level

# Up to this share of the identities it is how large data sets are; above, something is wrong.
_USUAL_SHARE = 0.1


def check_counts(splits: ReidSplits) -> list[Finding]:
    """How splits differ from what was published; at most one finding."""
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
    """A table of the counts of each split, "found / published", with a * where they differ."""
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
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(
        lines + ["found / published; * marks where they differ"] * bool(splits.published)
    )


def check_people(splits: ReidSplits) -> list[Finding]:
    """What is unusual about identities and cameras.

    Returns:
        Findings of the kinds ``shared_pids``, ``single_images``, ``single_cameras`` and
        ``unmatched_queries``.
    """
    findings = []
    if shared := splits.shared_pids():
        text = (
            f"{len(shared)} of {len(splits.classes)} train identities are in query or gallery too"
        )
        fix = (
            "If they are the same people, the scores are too good: take them out of one of the "
            "two. If the numbers start again in the test splits, give the test people other "
            "numbers."
        )
        items: list[dict[str, Any]] = [{"pid": pid} for pid in shared]
        findings.append(Finding("shared_pids", "warning", text, fix, items))

    pids, counts = np.unique(splits.train.pids, return_counts=True)
    if items := [{"pid": pid} for pid in pids[counts == 1].tolist()]:
        text = f"{len(items)} of {len(pids)} train identities have one image"
        fix = (
            "They have no positive pair for the triplet loss: a batch repeats the image. Add "
            "images of them, or leave them out."
        )
        findings.append(Finding("single_images", _level(items, len(pids)), text, fix, items))

    cameras_of = _cameras_of(splits.train)
    items = [
        {"pid": pid, "camera": next(iter(cameras))}
        for pid, cameras in sorted(cameras_of.items())
        if len(cameras) == 1 and splits.has_cameras
    ]
    if items:
        text = f"{len(items)} of {len(pids)} train identities are seen by one camera only"
        fix = (
            "What stays the same from camera to camera is not learnt from them. If it is most of "
            "them, is the camera read from the right place?"
        )
        findings.append(Finding("single_cameras", _level(items, len(pids)), text, fix, items))
    return findings + _unmatched(splits)


def _unmatched(splits: ReidSplits) -> list[Finding]:
    """Queries whose person has no gallery image from another camera."""
    if not len(splits.query) or not len(splits.gallery):
        return []
    cameras = _cameras_of(splits.gallery)
    queries = splits.query.images
    if splits.query.has_tracklets:  # the first image stands for its tracklet
        queries = [queries[i] for i in np.unique(splits.query.tracklets, return_index=True)[1]]
    items: list[dict[str, Any]] = [
        {"path": image.path, "pid": image.pid, "camera": image.camid}
        for image in queries
        if not cameras[image.pid] - {image.camid}
    ]
    level = "error" if len(items) == len(queries) else _level(items, len(queries))
    text = (
        f"{len(items)} of {len(queries)} queries have no match in the gallery under another camera"
    )
    fix = (
        "They are not counted. Add such images to the gallery, or take the queries out. If it is "
        "all of them, are pids and cameras numbered alike in both?"
    )
    return [Finding("unmatched_queries", level, text, fix, items)] if items else []


def _cameras_of(reader: ReidReader) -> defaultdict[int, set[int]]:
    """The cameras that see each person."""
    cameras: defaultdict[int, set[int]] = defaultdict(set)
    for image in reader.images:
        cameras[image.pid].add(image.camid)
    return cameras


def _level(items: list[dict[str, Any]], total: int) -> Level:
    return "warning" if len(items) > _USUAL_SHARE * total else "note"
