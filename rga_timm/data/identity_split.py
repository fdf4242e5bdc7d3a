"""A random split into people to train on and people to test on, kept in a file.

Re-identification is tested on people whom the model has never seen, so identities are split, not
images. The split is kept as a CSV file with the columns ``identity`` and ``split`` (``train`` or
``test``), and from then on the file decides: added images change nobody's side, users can put a
file of their own in its place, and the file can be published with a score.
"""

import csv
import hashlib
import logging
import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_logger = logging.getLogger(__name__)

DEFAULT_SHARE = 0.5
DEFAULT_SEED = 0
_SIDES = ("train", "test")
_MINIMUM = 2  # identities a side: a single one cannot be confused with another


class IdentitySplit(NamedTuple):
    """How to split by identity, from the options of a data set."""

    default_file: Path  # where the split is kept, unless `split_file` is given
    split_file: str | None = None
    test_share: float = DEFAULT_SHARE  # of the identities. With 0 or 1 there is no file
    seed: int = DEFAULT_SEED  # of the random split

    @property
    def file(self) -> Path:
        """Where the split is kept."""
        return Path(self.split_file).expanduser() if self.split_file else self.default_file

    @property
    def is_default(self) -> bool:
        """Whether no option was changed."""
        return self == IdentitySplit(self.default_file)

    def apply(self, identities: Iterable[str]) -> dict[str, str]:
        """Return the side of each identity, ``"train"`` or ``"test"``.

        Reads the file, or draws a split and writes it. Processes may do this at the same time: the
        first one to write the file wins, and all others use what it wrote.

        Raises:
            ValueError: ``test_share`` is invalid; a side has too few identities; the file is
                invalid, lacks identities, or cannot be written.
        """
        names = sorted(set(identities))
        if not 0 <= self.test_share <= 1:
            raise ValueError(f"test_share is from 0 to 1, not {self.test_share}")
        if self.test_share in (0, 1):
            return dict.fromkeys(names, _SIDES[int(self.test_share)])
        is_new = not self.file.exists()
        if is_new:
            _write(self.file, split_identities(names, self.test_share, self.seed))
        split = self._read(names)
        kept = "kept from now on in" if is_new else "as kept in"
        _logger.info("split by identity, %s %s: %s", kept, self.file, _sizes(split))
        return split

    def _read(self, names: list[str]) -> dict[str, str]:
        """Read the sides of these identities."""
        sides = read_identity_split(self.file)
        if unknown := [name for name in names if name not in sides]:
            raise ValueError(
                f"{self.file} does not say the side of {len(unknown)} of the identities "
                f"({_some(unknown)}). Add a line for each, such as {unknown[0]},train; or delete "
                "the file for a new random split"
            )
        if gone := sorted(set(sides) - set(names)):
            text = "%s has %d identities that are not in the data: %s"
            _logger.warning(text, self.file, len(gone), _some(gone))
        split = {name: sides[name] for name in names}
        _check_sizes(split, f"{self.file}: ")
        options = (self.test_share, self.seed)
        if options != (DEFAULT_SHARE, DEFAULT_SEED) and split != _draw(names, *options):
            _logger.warning(
                "%s is not what test_share=%s and seed=%d would give. The file decides: delete it "
                "or name another one by split_file for these options to have an effect",
                *(self.file, *options),
            )
        return split


def split_identities(identities: Iterable[str], test_share: float, seed: int) -> dict[str, str]:
    """Split identities into ``"train"`` and ``"test"`` at random.

    The split depends on the set of names, the share and the seed alone: the test side gets those
    with the smallest SHA-256 of "seed name". Fewer than two on a side are a ValueError.
    """
    split = _draw(sorted(set(identities)), test_share, seed)
    _check_sizes(split, f"test_share={test_share} of {len(split)} identities: ")
    return split


def _draw(names: list[str], test_share: float, seed: int) -> dict[str, str]:
    # surrogateescape: a folder's name is not always valid UTF-8.
    order = sorted(
        names,
        key=lambda name: hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest(),
    )
    tested = set(order[: round(test_share * len(names))])
    return {name: "test" if name in tested else "train" for name in names}


def read_identity_split(path: Path) -> dict[str, str]:
    """Read the side of each identity; a ValueError with FILE:LINE if it is not a split file."""
    sides: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.reader(file)
            if next(rows, None) != ["identity", "split"]:
                raise ValueError(f"{path}:1 is not the header identity,split of a split file")
            for row in filter(None, rows):
                place = f"{path}:{rows.line_num}"
                if len(row) != 2 or (side := row[1].strip()) not in _SIDES:
                    raise ValueError(f"{place} is not IDENTITY,train or IDENTITY,test: {row}")
                if row[0] in sides:
                    raise ValueError(f"{place} has {row[0]!r} for the second time")
                sides[row[0]] = side
    except (OSError, csv.Error) as error:
        raise ValueError(f"cannot read the split file {path}: {error}") from error
    return sides


def _write(path: Path, split: Mapping[str, str]) -> None:
    """Write a split, unless another process did in the meantime."""
    part = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with part.open("x", encoding="utf-8", errors="surrogateescape", newline="") as file:
            csv.writer(file).writerows([("identity", "split"), *split.items()])
        try:
            os.link(part, path)  # unlike a rename, it does not replace a file
        except OSError:  # the file exists, or the file system has no hard links
            if not path.exists():
                part.replace(path)
    except OSError as error:
        text = f"cannot keep the split by identity in {path} ({error.strerror or error})"
        raise ValueError(f"{text}: choose another place by split_file=PATH") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _check_sizes(split: Mapping[str, str], where: str) -> None:
    if any(list(split.values()).count(side) < _MINIMUM for side in _SIDES):
        text = f"{where}{_sizes(split)}, but at least {_MINIMUM} must be on each side"
        raise ValueError(f"{text}. test_share=0 trains on all and test_share=1 tests on all")


def _sizes(split: Mapping[str, str]) -> str:
    tested = list(split.values()).count("test")
    return f"{len(split) - tested} identities to train and {tested} to test on"


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + ", …" * (len(names) > limit)
