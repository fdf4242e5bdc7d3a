"""Files that operating systems leave among the images."""

import os
import shlex
from collections import Counter
from pathlib import Path

from .finding import Finding

_FILES = ("thumbs.db", "desktop.ini", ".ds_store")


def find_strays(root: Path) -> list[Finding]:
    """Files of macOS and Windows below a folder; at most one finding.

    Readers pass over them, so they do no harm.
    """
    found: list[str] = []
    kinds: Counter[str] = Counter()
    for folder, folders, files in os.walk(root):
        folders.sort()
        inside = "__macosx" in (part.lower() for part in Path(folder).relative_to(root).parts)
        for name in sorted(files):
            if kind := "__MACOSX" if inside else _kind(name):
                found.append((Path(folder) / name).relative_to(root).as_posix())
                kinds[kind] += 1
    if not found:
        return []
    what = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    names = " -o ".join(f"-iname '{kind}'" for kind in ("._*", *_FILES))
    mend = (
        "They do no harm: readers pass over them. To delete them: "
        f"find {shlex.quote(str(root))} -type f \\( {names} -o -ipath '*/__MACOSX/*' \\) -delete"
    )
    text = f"{len(found)} files that macOS or Windows left there ({what})"
    return [Finding("strays", "note", text, mend, [{"path": path} for path in found])]


def _kind(name: str) -> str | None:
    if name.startswith("._"):
        return "._*"
    return name if name.lower() in _FILES else None
