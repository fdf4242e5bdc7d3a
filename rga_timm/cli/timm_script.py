"""Run any timm script, unchanged, with the models registered.

The script runs as by ``python SCRIPT ...``, but after ``import rga_timm``. Processes that it starts
by spawn or forkserver lack that import; if they create models, the script must import rga_timm
itself. Worker processes of a DataLoader need no models.
"""

from __future__ import annotations

import os
import runpy
import sys
import warnings
from pathlib import Path

import timm


def run_script(script: str, arguments: list[str]) -> None:
    """Set ``sys.argv`` and ``sys.path`` for a script, and run it as ``__main__``."""
    if not os.path.isfile(script):
        sys.exit(f"rga-timm: error: there is no script {script}")
    folder = os.path.dirname(os.path.realpath(script))
    _warn_of_other_timm(Path(folder))
    sys.argv = [script, *arguments]
    if not getattr(sys.flags, "safe_path", False):  # python -P; from 3.11 on
        sys.path[0] = folder  # python -m has put the working directory there
    # Spawned worker processes find the script's classes by __main__.__file__, which must be
    # absolute to stay valid after a change of directory.
    runpy.run_path(os.path.abspath(script), run_name="__main__")


def _warn_of_other_timm(folder: Path) -> None:
    """Warn if the script is in a clone of timm of another version than the installed one."""
    file, version = folder / "timm" / "version.py", timm.__version__
    if file.is_file() and f"'{version}'" not in file.read_text():
        warnings.warn(
            f"the script is in a clone of another version of timm than the installed {version}, "
            f"which it will use: check out the script of that version (git checkout v{version}), "
            f"or install the clone (pip install {folder})",
            stacklevel=2,
        )
