"""What the lists of a data set tell: counts, people in two splits, what cannot be learnt from."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from ..reader import ReidReader
from ..splits import Counts, ReidSplits
from .finding import Finding, Level

# Up to this share of the identities it is how large data sets are; above, something is wrong.
_USUAL_SHARE = 0.1
# A camera is rare if it has less than this share of what it would have if all had the same.
_RARE_CAMERA = 0.1


def check_counts(splits: ReidSplits) -> list[Finding]:
    """How splits differ from what was published; at most one finding."""
    items: list[dict[str, Any]] = [
        {"split": split, "count": field, "found": ours, "published": theirs}
        for split, published in (splits.published or {}).items()
        for field, ours, theirs in zip(Counts._fields, splits.counts[split], published, strict=True)
        if theirs not in (None, ours)
    ]
    if not items:
        return []
    return [
        Finding(
            "counts",
            "warning",
            f"the counts are not those that {splits.name} was published with",
            "Is it another version of the data set, was it unpacked in full, or are these data of "
            "your own in its layout? Scores do not compare with published ones.",
            items,
        )
    ]


def format_counts(splits: ReidSplits) -> str:
    """A table of the counts of each split, "found / published", with a * where they differ."""
    rows = [["split", *Counts._fields]]
    for split, counts in splits.counts.items():
        published = (splits.published or {}).get(split) or Counts(*[None] * 4)
        cells = (_cell(ours, theirs) for ours, theirs in zip(counts, published, strict=True))
        rows.append([split, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    notes = []
    if splits.published:
        notes.append("found / published; * marks where they differ")
    return "\n".join(lines + notes)


def _cell(ours: int | None, theirs: int | None) -> str:
    found = "-" if ours is None else str(ours)
    if theirs is None:
        return found
    return f"{found} / {theirs}" + " *" * (ours != theirs)


def check_people(splits: ReidSplits) -> list[Finding]:
    """What is unusual about identities and cameras.

    Returns:
        Findings of the kinds ``shared_pids``, ``single_images``, ``single_cameras``,
        ``rare_cameras`` and ``unmatched_queries``.
    """
    found = [_shared(splits), _single_images(splits.train)]
    if splits.has_cameras:
        found += [_single_cameras(splits.train), _rare_cameras(splits)]
    found.append(_unmatched(splits))
    return [finding for finding in found if finding]


def _shared(splits: ReidSplits) -> Finding | None:
    shared = splits.shared_pids()
    if not shared:
        return None
    return Finding(
        "shared_pids",
        "warning",
        f"{len(shared)} of {len(splits.classes)} train identities are in query or gallery too",
        "If they are the same people, the scores are too good: take them out of one of the two. "
        "If the numbers start again in the test splits, give the test people other numbers.",
        [{"pid": pid} for pid in shared],
    )


def _single_images(train: ReidReader) -> Finding | None:
    pids, counts = np.unique(train.pids, return_counts=True)
    single = pids[counts == 1].tolist()
    if not single:
        return None
    return Finding(
        "single_images",
        _level(len(single), len(pids)),
        f"{len(single)} of {len(pids)} train identities have one image",
        "They have no positive pair for the triplet loss: a batch repeats the image. Add images of "
        "them, or leave them out.",
        [{"pid": pid} for pid in single],
    )


def _single_cameras(train: ReidReader) -> Finding | None:
    cameras = _cameras_of(train)
    single = sorted(pid for pid, camids in cameras.items() if len(camids) == 1)
    if not single:
        return None
    return Finding(
        "single_cameras",
        _level(len(single), len(cameras)),
        f"{len(single)} of {len(cameras)} train identities are seen by one camera only",
        "What stays the same from camera to camera is not learnt from them. If it is most of them, "
        "is the camera read from the right place?",
        [{"pid": pid, "camera": next(iter(cameras[pid]))} for pid in single],
    )


def _rare_cameras(splits: ReidSplits) -> Finding | None:
    items: list[dict[str, Any]] = []
    for split, reader in splits.readers.items():
        images_of = Counter(reader.camids.tolist())
        even = len(reader) / max(len(images_of), 1)
        items += [
            {"split": split, "camera": camid, "images": count}
            for camid, count in sorted(images_of.items())
            if count < _RARE_CAMERA * even
        ]
    if not items:
        return None
    return Finding(
        "rare_cameras",
        "note",
        f"{len(items)} cameras have few images: less than a tenth of a camera's even share",
        "Is the camera read from the right place? If so, expect worse scores under them.",
        items,
    )


def _unmatched(splits: ReidSplits) -> Finding | None:
    """Queries of whom the gallery has no image from another camera."""
    if not len(splits.query) or not len(splits.gallery):
        return None
    cameras = _cameras_of(splits.gallery)
    # Of a tracklet the first image stands for all.
    tracklets = splits.query.tracklets
    queries = np.unique(tracklets, return_index=True)[1] if splits.query.has_tracklets else ...
    images = np.array(range(len(splits.query)))[queries].tolist()
    items: list[dict[str, Any]] = [
        {"path": image.path, "pid": image.pid, "camera": image.camid}
        for image in (splits.query.images[i] for i in images)
        if not cameras[image.pid] - {image.camid}
    ]
    if not items:
        return None
    return Finding(
        "unmatched_queries",
        "error" if len(items) == len(images) else _level(len(items), len(images)),
        f"{len(items)} of {len(images)} queries have no match in the gallery under another camera",
        "They are not counted. Add such images to the gallery, or take the queries out. If it is "
        "all of them, are pids and cameras numbered alike in both?",
        items,
    )


def _cameras_of(reader: ReidReader) -> defaultdict[int, set[int]]:
    """The cameras that see each person."""
    cameras: defaultdict[int, set[int]] = defaultdict(set)
    for pid, camid in zip(reader.pids.tolist(), reader.camids.tolist(), strict=True):
        cameras[pid].add(camid)
    return cameras


def _level(count: int, total: int) -> Level:
    return "warning" if count > _USUAL_SHARE * total else "note"
