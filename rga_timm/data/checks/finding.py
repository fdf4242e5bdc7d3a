"""What a check reports: findings, and the verdict over all of them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["note", "warning", "error"]

_VERDICTS = {"note": "OK", "warning": "warnings", "error": "errors"}  # the worst comes last


@dataclass(frozen=True)
class Finding:
    """Something that a check found."""

    kind: str  # one word for programs
    # note: good to know; warning: scores or training suffer; error: the data cannot be used.
    level: Level
    text: str  # what was found
    fix: str = ""  # what to do about it
    items: list[dict[str, Any]] = field(default_factory=list)  # each case of it, in plain types

    def as_dict(self) -> dict[str, Any]:
        """Return everything in plain types, ready for JSON."""
        return asdict(self)

    def lines(self, limit: int = 5) -> list[str]:
        """Format the finding for people, with its first cases."""
        lines = [f"{self.level}: {self.text}"]
        for item in self.items[:limit]:
            words = []
            for name, value in item.items():
                text = " = ".join(map(str, value)) if isinstance(value, list) else str(value)
                words.append(text if isinstance(value, list | str) else f"{name} {text}")
            lines.append("    " + ": ".join(words))
        if len(self.items) > limit:
            lines.append(f"    and {len(self.items) - limit} more")
        return lines + [f"  -> {self.fix}"] * bool(self.fix)


def verdict(findings: Iterable[Finding]) -> str:
    """Return ``OK``, ``warnings`` or ``errors`` for the worst of the findings. Notes are OK."""
    levels = {finding.level for finding in findings} | {"note"}
    return [_VERDICTS[level] for level in _VERDICTS if level in levels][-1]
