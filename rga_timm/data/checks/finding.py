"""What a check reports: findings, and the verdict over all of them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["note", "warning", "error"]

_VERDICTS = {"note": "OK", "warning": "warnings", "error": "errors"}  # the worst comes last


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        kind: What it is, one word for programs.
        level: ``note``: good to know. ``warning``: scores or training suffer. ``error``: the data
            cannot be used as they are.
        text: What it is, for people.
        fix: What to do about it.
        items: Each case of it, in plain types.
    """

    kind: str
    level: Level
    text: str
    fix: str = ""
    items: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, ready for JSON."""
        return asdict(self)

    def lines(self, limit: int = 5) -> list[str]:
        """The finding for people to read, with its first cases."""
        lines = [f"{self.level}: {self.text}"]
        for item in self.items[:limit]:
            # Texts as they are, numbers after what they are, lists with " = " between.
            words = (
                " = ".join(map(str, value))
                if isinstance(value, list)
                else value
                if isinstance(value, str)
                else f"{name} {value}"
                for name, value in item.items()
            )
            lines.append("    " + ": ".join(words))
        if len(self.items) > limit:
            lines.append(f"    and {len(self.items) - limit} more")
        return lines + [f"  -> {self.fix}"] * bool(self.fix)


def verdict(findings: Iterable[Finding]) -> str:
    """``OK``, ``warnings`` or ``errors``: the worst of the findings. Notes are OK."""
    levels = {finding.level for finding in findings} | {"note"}
    return [_VERDICTS[level] for level in _VERDICTS if level in levels][-1]
