"""Declare options, and the numbers that they take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_LARGEST = 2**32  # of whole numbers: seeds of NumPy, sizes of torch


@dataclass(frozen=True)
class Range:
    """Finite numbers between limits, of which `above` and `below` are not part of the range."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    def misfit(self, value: Any) -> str | None:
        """Say what a number, or each of several, must be; None if it is, or for another type."""
        if isinstance(value, Sequence) and not isinstance(value, str):
            return next(filter(None, map(self.misfit, value)), None)
        if not isinstance(value, int | float):
            return None
        fits = {
            "a finite number": math.isfinite(value),
            f"at least {self.minimum}": self.minimum is None or value >= self.minimum,
            f"at most {self.maximum}": self.maximum is None or value <= self.maximum,
            f"above {self.above}": self.above is None or value > self.above,
            f"below {self.below}": self.below is None or value < self.below,
            "below 2^32": isinstance(value, float) or abs(value) < _LARGEST,
        }
        return next((f"must be {text}, not {value}" for text, so in fits.items() if not so), None)


def option(
    default: Any, text: str, group: str = "run", *, minimum: float | None = None,
    maximum: float | None = None, above: float | None = None, below: float | None = None,
    **argument: Any,
) -> Any:  # fmt: skip
    """Declare a field, its numbers' range, and in `argument` more for argparse's `add_argument`."""
    limits = Range(minimum, maximum, above, below)
    metadata = {"help": text, "group": group, "range": limits, "argument": argument}
    kind = "default_factory" if callable(default) else "default"
    return field(**{kind: default}, metadata=metadata)
