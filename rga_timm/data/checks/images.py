"""What decoding all images tells: broken and tiny ones, and the same one twice."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..splits import ReidSplits
from .decode import ImageFacts
from .finding import Finding, Level

SMALLEST = 16  # pixels of the shorter side, below which people cannot be told apart


def check_images(splits: ReidSplits, facts_of: Mapping[str, Iterable[ImageFacts]]) -> list[Finding]:
    """What is wrong with images.

    Args:
        splits: The data set.
        facts_of: From the name of a split to what `inspect_images` gave for it, or a part of it.

    Returns:
        Findings of the kinds ``unreadable``, ``tiny`` and, where the facts have digests,
        ``two_identities``, ``train_and_test``, ``query_in_gallery`` and ``twice``.
    """
    facts = [
        (split, splits.readers[split].images[fact.position], fact)
        for split, of_split in facts_of.items()
        for fact in of_split
    ]
    findings = []
    if items := [
        {"split": split, "path": image.path, "why": fact.reason}
        for split, image, fact in facts
        if fact.reason is not None
    ]:
        text = f"{len(items)} images cannot be read"
        findings.append(Finding("unreadable", "error", text, _UNREADABLE, items))
    if items := [
        {"split": split, "path": image.path, "size": "{}x{}".format(*fact.size)}
        for split, image, fact in facts
        if fact.reason is None and min(fact.size) < SMALLEST
    ]:
        text = f"{len(items)} images have a side of less than {SMALLEST} pixels"
        findings.append(Finding("tiny", "warning", text, _TINY, items))
    groups: dict[str, list[_Copy]] = defaultdict(list)
    for split, image, fact in facts:
        if fact.digest:
            groups[fact.digest].append(_Copy(split, image.pid, image.camid, image.path))
    several = [copies for copies in groups.values() if len(copies) > 1]
    for kind, (level, is_wrong, text, fix) in _DUPLICATES.items():
        if found := [copies for copies in several if is_wrong(copies, splits.same_numbering)]:
            copies_of = [{"images": [str(copy) for copy in copies]} for copies in found]
            findings.append(Finding(kind, level, text.format(len(found)), fix, copies_of))
    return findings


class _Copy(NamedTuple):
    """One of several identical images."""

    split: str
    pid: int
    camid: int
    path: str

    def __str__(self) -> str:
        return f"{self.path} ({self.split}, pid {self.pid}, camera {self.camid})"

    @property
    def is_train(self) -> bool:
        return self.split == "train"


def _is_two_people(copies: list[_Copy], same_numbering: bool) -> bool:
    # Without the same numbering a pid may be another person in train than in the test splits.
    people = {(copy.is_train and not same_numbering, copy.pid) for copy in copies}
    return len(people) > len({side for side, _ in people})


def _is_train_and_test(copies: list[_Copy], same_numbering: bool) -> bool:
    return len({copy.is_train for copy in copies}) == 2


def _finds_itself(copies: list[_Copy], same_numbering: bool) -> bool:
    """Under the same camera a gallery image is not looked at."""
    return any(
        query.pid == answer.pid and query.camid != answer.camid
        for query in copies
        for answer in copies
        if (query.split, answer.split) == ("query", "gallery")
    )


def _is_twice(copies: list[_Copy], same_numbering: bool) -> bool:
    return len({(copy.split, copy.pid) for copy in copies}) < len(copies)


_UNREADABLE = (
    "Unpack or download these files again. Or leave them out: --skip-bad-images, in Python "
    "rga_timm.data.skip_bad_images. Scores then do not compare with those on the whole set."
)
_TINY = (
    "Look at them: wrong boxes, or thumbnails in the place of the images? Leave out what shows "
    "nobody."
)
# Identical images. From the kind to level, what is wrong, text (of how many), and what to do.
_DUPLICATES: dict[str, tuple[Level, Callable[[list[_Copy], bool], bool], str, str]] = {
    "two_identities": (
        "warning",
        _is_two_people,
        "{} images are there under two identities",
        "One of them is wrong, and teaches or tests something wrong. In data of your own correct "
        "it; in a published set leave it, or scores do not compare.",
    ),
    "train_and_test": (
        "warning",
        _is_train_and_test,
        "{} images are both trained and tested on",
        "The scores are too good. In data of your own take them out of one of the splits.",
    ),
    "query_in_gallery": (
        "warning",
        _finds_itself,
        "{} images are queries, and in the gallery under another camera: they find themselves",
        "The scores are too good. In data of your own take them out of one of the two, or correct "
        "their cameras.",
    ),
    "twice": (
        "note",
        _is_twice,
        "{} images are there more than once under one identity, in the same split",
        "They count more than others. In data of your own delete all but one.",
    ),
}
