"""What decoding all images shows: broken and tiny ones, and the same one twice."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..splits import ReidSplits
from .decode import ImageFacts
from .finding import Finding, Level

SMALLEST = 16  # pixels of the shorter side, below which people cannot be told apart


def check_images(splits: ReidSplits, facts_of: Mapping[str, Iterable[ImageFacts]]) -> list[Finding]:
    """Check images, from the facts of each split that `inspect_images` gave, or some of them.

    Finds the kinds ``unreadable``, ``tiny``, ``clipped`` and, if the facts have digests,
    ``two_identities``, ``train_and_test``, ``query_in_gallery`` and ``twice``.
    """
    unreadable, tiny, clipped, findings = [], [], [], []
    groups: dict[str, list[_Copy]] = defaultdict(list)
    for split, fact in ((split, fact) for split, facts in facts_of.items() for fact in facts):
        image = splits.readers[split].images[fact.position]
        if fact.reason is not None:
            unreadable.append({"split": split, "path": image.path, "why": fact.reason})
            continue
        if min(fact.size) < SMALLEST:
            size = "{}x{}".format(*fact.size)
            tiny.append({"split": split, "path": image.path, "size": size})
        if image.box is not None and fact.size != _size(image.box):
            box = dict(zip(("left", "top", "right", "bottom"), image.box, strict=True))
            clipped.append({"split": split, "path": image.path, **box})
        if fact.digest:
            # Without the same numbering a pid may be another person in train than in the test.
            other = split == "train" and not splits.same_numbering
            groups[fact.digest].append(_Copy(split, image.pid, image.camid, image.path, other))
    if unreadable:
        text = f"{len(unreadable)} images cannot be read"
        findings.append(Finding("unreadable", "error", text, _UNREADABLE, unreadable))
    if tiny:
        text = f"{len(tiny)} images have a side of less than {SMALLEST} pixels"
        findings.append(Finding("tiny", "warning", text, _TINY, tiny))
    if clipped:
        text = f"{len(clipped)} boxes reach beyond their images"
        findings.append(Finding("clipped", "warning", text, _CLIPPED, clipped))
    several = [group for group in groups.values() if len(group) > 1]
    for kind, (text, fix) in _DUPLICATES.items():
        if items := [
            {"images": [str(copy) for copy in group]} for group in several if kind in _kinds(group)
        ]:
            level: Level = "note" if kind == "twice" else "warning"
            findings.append(Finding(kind, level, f"{len(items)} images are {text}", fix, items))
    return findings


def _size(box: tuple[int, int, int, int]) -> tuple[int, int]:
    left, top, right, bottom = box
    return right - left, bottom - top


class _Copy(NamedTuple):
    """One of several identical images."""

    split: str
    pid: int
    camid: int
    path: str
    other_numbering: bool

    def __str__(self) -> str:
        return f"{self.path} ({self.split}, pid {self.pid}, camera {self.camid})"


def _kinds(copies: list[_Copy]) -> Iterator[str]:
    """Yield what is wrong with identical images."""
    people = {(copy.other_numbering, copy.pid) for copy in copies}
    if len(people) > len({numbering for numbering, _ in people}):
        yield "two_identities"
    if len({copy.split == "train" for copy in copies}) == 2:
        yield "train_and_test"
    queries = [copy for copy in copies if copy.split == "query"]
    answers = [copy for copy in copies if copy.split == "gallery"]
    if any(q.pid == a.pid and q.camid != a.camid for q in queries for a in answers):
        yield "query_in_gallery"
    if len({(copy.split, copy.pid) for copy in copies}) < len(copies):
        yield "twice"


_UNREADABLE = (
    "Unpack or download these files again. Or leave them out: --skip-bad-images, in Python "
    "rga_timm.data.skip_bad_images. Scores then do not compare with those on the whole set."
)
_TINY = "Are they wrong boxes, or thumbnails of the images? Leave out what shows nobody."
_CLIPPED = (
    "What is beyond the edge is left out. If these are many: are the columns left, top, right and "
    "bottom (not width and height), in pixels of the upright image?"
)
# Identical images: text and what to do.
_DUPLICATES = {
    "two_identities": (
        "there under two identities",
        "One of them is wrong, and teaches or tests something wrong. In data of your own correct "
        "it; in a published set leave it, or scores do not compare.",
    ),
    "train_and_test": (
        "both trained and tested on",
        "The scores are too good. In data of your own take them out of one of the splits.",
    ),
    "query_in_gallery": (
        "queries, and in the gallery under another camera: they find themselves",
        "The scores are too good. In data of your own take them out of one of the two, or correct "
        "their cameras.",
    ),
    "twice": (
        "there more than once under one identity, in the same split",
        "They count more than others. In data of your own delete all but one.",
    ),
}
