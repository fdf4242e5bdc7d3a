"""Whether results can be written where a user asks for them, before any work is done."""

import os
from pathlib import Path


def check_writable_file(file: Path, suffix: str) -> None:
    """Raise a ValueError unless a file can be made or replaced.

    One that is there is replaced only if it has the suffix of what is written, such as ``.json``:
    another is likely to be something else, named by mistake.
    """
    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent} to write {file.name} to")
    if file.is_dir():
        raise ValueError(f"{file} is a folder, not a file to write to")
    if file.exists() and not (file.is_file() and file.suffix == suffix):
        raise ValueError(f"{file} is there already, and is not a {suffix} file to be replaced")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"{file} must not be written: there is no permission")


def check_writable_folder(folder: Path) -> None:
    """Raise a ValueError unless files can be written to a folder, which may not exist yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, not a folder to write to")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{folder} must not be written: there is no permission")
