"""Files that are whole at any time: they get their names only when they are complete."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside a file; at the end, rename it to the file's.

    If the writing fails or is interrupted, the file stays as it was and the temporary one goes.
    What is not a regular file, such as ``/dev/stdout``, is written to directly.

    Raises:
        OSError: It cannot be written; the error names the file, not the temporary one.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        yield path
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with writing(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name a file in an error of the system, in whatever form a library raises it."""
    try:
        yield
    except Exception as error:
        named = getattr(error, "filename", None) or path
        number = _error_number(error)
        if number is None or path.parent not in Path(named).parents:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def write_text(path: str | Path, text: str, *, errors: str = "strict") -> None:
    """Write a UTF-8 file by :func:`whole_file`; `errors` is as for ``str.encode``."""
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors))


def _error_number(error: Exception) -> int | None:
    """The operating system's number of an error: torch and safetensors only put it into a text."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"(?:\[Errno |\(os error )(\d+)", str(error))
    return int(found[1]) if found else None
