"""Text files that are whole at any time."""

from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file under a temporary name beside it, then rename it.

    An interruption leaves the file as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
