"""What a check says: a finding, and the verdict over all of them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["note", "warning", "error"]

_VERDICTS = {"note": "OK", "warning": "warnings", "error": "errors"}
_ORDER: tuple[Level, ...] = ("note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        kind: What it is, one word for programs.
        level: ``note``: good to know. ``warning``: scores or training suffer. ``error``: the data
            cannot be used as they are.
        text: What it is, for people.
        mend: What to do about it.
        items: Each case of it, in plain types.
    """

    kind: str
    level: Level
    text: str
    mend: str = ""
    items: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, ready for JSON."""
        return asdict(self)

    def lines(self, limit: int = 5) -> list[str]:
        """The finding for people to read, with its first cases."""
        lines = [f"{self.level}: {self.text}"]
        lines += [f"    {_line(item)}" for item in self.items[:limit]]
        if len(self.items) > limit:
            lines.append(f"    and {len(self.items) - limit} more")
        if self.mend:
            lines.append(f"  -> {self.mend}")
        return lines


def verdict(findings: Iterable[Finding]) -> str:
    """``OK``, ``warnings`` or ``errors``: the worst of the findings. Notes are OK."""
    worst = max((_ORDER.index(finding.level) for finding in findings), default=0)
    return _VERDICTS[_ORDER[worst]]


def _line(item: dict[str, Any]) -> str:
    """Texts as they are; numbers after what they are; several things with " = " between them."""
    words = []
    for name, value in item.items():
        if isinstance(value, list):
            words.append(" = ".join(map(str, value)))
        elif isinstance(value, str):
            words.append(value)
        else:
            words.append(f"{name} {value}")
    return ": ".join(words)
