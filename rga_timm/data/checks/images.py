"""What decoding all images tells: broken, tiny and grey ones, and the same one twice."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..splits import ReidSplits
from .decode import ImageFacts
from .finding import Finding, Level

SMALLEST = 16  # pixels, of the shorter side: below it nobody can be told from anybody


def check_images(splits: ReidSplits, facts_of: Mapping[str, Iterable[ImageFacts]]) -> list[Finding]:
    """What is wrong with images.

    Args:
        splits: The data set.
        facts_of: From the name of a split to what `inspect_images` gave for it, or a part of it.

    Returns:
        Findings of the kinds ``unreadable``, ``tiny``, ``not_rgb`` and, where the facts have
        digests, ``two_identities``, ``train_and_test``, ``query_in_gallery`` and ``twice``.
    """
    facts = {split: list(facts) for split, facts in facts_of.items()}
    found = [_unreadable(splits, facts), _tiny(splits, facts), _not_rgb(facts)]
    return [finding for finding in found if finding] + _duplicates(splits, facts)


def _unreadable(splits: ReidSplits, facts_of: dict[str, list[ImageFacts]]) -> Finding | None:
    items = [
        {
            "split": split,
            "path": splits.readers[split].images[fact.position].path,
            "why": fact.reason,
        }
        for split, facts in facts_of.items()
        for fact in facts
        if fact.reason is not None
    ]
    if not items:
        return None
    return Finding(
        "unreadable",
        "error",
        f"{len(items)} images cannot be read",
        "Unpack or download these files again. Or leave them out: --skip-bad-images, in Python "
        "rga_timm.data.skip_bad_images. Scores then do not compare with those on the whole set.",
        items,
    )


def _tiny(splits: ReidSplits, facts_of: dict[str, list[ImageFacts]]) -> Finding | None:
    items = [
        {
            "split": split,
            "path": splits.readers[split].images[fact.position].path,
            "size": "{}x{}".format(*fact.size),
        }
        for split, facts in facts_of.items()
        for fact in facts
        if fact.reason is None and min(fact.size) < SMALLEST
    ]
    if not items:
        return None
    return Finding(
        "tiny",
        "warning",
        f"{len(items)} images have a side of less than {SMALLEST} pixels",
        "Look at them: wrong boxes, or thumbnails in the place of the images? What shows nobody "
        "is better left out.",
        items,
    )


def _not_rgb(facts_of: dict[str, list[ImageFacts]]) -> Finding | None:
    modes = Counter(fact.mode for facts in facts_of.values() for fact in facts if not fact.reason)
    del modes["RGB"]
    if not modes:
        return None
    return Finding(
        "not_rgb",
        "note",
        f"{sum(modes.values())} images are not RGB",
        "Nothing to be done: they are converted when they are read. If all of a camera's are L "
        "(grey), it tells nothing about colours.",
        [{"mode": mode, "images": count} for mode, count in sorted(modes.items())],
    )


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


def _duplicates(splits: ReidSplits, facts_of: dict[str, list[ImageFacts]]) -> list[Finding]:
    """Identical images, by what is wrong with it. Some are in more than one of the findings."""
    groups: dict[str, list[_Copy]] = defaultdict(list)
    for split, facts in facts_of.items():
        for fact in facts:
            if fact.digest:
                image = splits.readers[split].images[fact.position]
                groups[fact.digest].append(_Copy(split, image.pid, image.camid, image.path))
    several = [copies for copies in groups.values() if len(copies) > 1]
    kinds = {
        "two_identities": [
            copies for copies in several if _are_two_people(copies, splits.same_numbering)
        ],
        "train_and_test": [
            copies for copies in several if len({copy.is_train for copy in copies}) == 2
        ],
        "query_in_gallery": [copies for copies in several if _gives_answer_away(copies)],
        "twice": [copies for copies in several if _is_twice(copies)],
    }
    findings = []
    for kind, found in kinds.items():
        if found:
            level, text, mend = _DUPLICATES[kind]
            items = [_item(copies) for copies in found]
            findings.append(Finding(kind, level, text.format(len(found)), mend, items))
    return findings


def _are_two_people(copies: list[_Copy], same_numbering: bool) -> bool:
    """Whether an image is said to show different people."""
    if same_numbering:
        return len({copy.pid for copy in copies}) > 1
    # Pids say nothing from train to test, but within each.
    return any(
        len({copy.pid for copy in copies if copy.is_train == is_train}) > 1
        for is_train in (True, False)
    )


def _gives_answer_away(copies: list[_Copy]) -> bool:
    """Whether a query finds itself; under the same camera it is not looked at."""
    return any(
        query.pid == answer.pid and query.camid != answer.camid
        for query in copies
        if query.split == "query"
        for answer in copies
        if answer.split == "gallery"
    )


def _is_twice(copies: list[_Copy]) -> bool:
    return len({(copy.split, copy.pid) for copy in copies}) < len(copies)


def _item(copies: list[_Copy]) -> dict[str, Any]:
    return {"images": [str(copy) for copy in copies]}


# From the kind to level, text (of how many), and what to do.
_DUPLICATES: dict[str, tuple[Level, str, str]] = {
    "two_identities": (
        "warning",
        "{} images are there under two identities",
        "One of them is wrong, and teaches or tests something wrong. In data of your own correct "
        "it; in a published set leave it, or scores do not compare.",
    ),
    "train_and_test": (
        "warning",
        "{} images are both trained and tested on",
        "The scores are too good. In data of your own take them out of one of the splits.",
    ),
    "query_in_gallery": (
        "warning",
        "{} images are queries, and in the gallery under another camera: they find themselves",
        "The scores are too good. In data of your own take them out of one of the two, or correct "
        "their cameras.",
    ),
    "twice": (
        "note",
        "{} images are there more than once under one identity, in the same split",
        "They count more than others. In data of your own delete all but one.",
    ),
}
