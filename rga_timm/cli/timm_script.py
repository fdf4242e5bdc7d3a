"""Run any timm script, unchanged, with the models registered.

The script runs as ``python SCRIPT ...`` would run it, but after ``import rga_timm``. Processes that
it starts by spawn or forkserver do not have that import: they know the models only if the script
imports rga_timm itself. Worker processes of a DataLoader need no models.
"""

from __future__ import annotations

import os
import runpy
import sys
import warnings
from pathlib import Path

import timm


def run_script(script: str, arguments: list[str]) -> None:
    """Make ``sys.argv`` and ``sys.path`` the script's own, and run it as ``__main__``.

    Args:
        script: The file.
        arguments: What follows it on the command line.
    """
    if not os.path.isfile(script):
        sys.exit(f"rga-timm: error: there is no script {script}")
    folder = os.path.dirname(os.path.realpath(script))
    _warn_of_other_timm(Path(folder))
    sys.argv = [script, *arguments]
    if not getattr(sys.flags, "safe_path", False):  # python -P; from 3.11 on
        sys.path[0] = folder  # python -m has put the working directory there
    # run_path puts the script's module into sys.modules as __main__ while it runs, with its
    # __file__: that is how a worker process that does not fork finds the script's classes.
    # Absolute, as python makes it, so that it holds after a change of directory.
    runpy.run_path(os.path.abspath(script), run_name="__main__")


def _warn_of_other_timm(folder: Path) -> None:
    """Warn where a clone of timm beside the script is of another version than the installed one."""
    version_file = folder / "timm" / "version.py"
    if not version_file.is_file():
        return
    if f"'{timm.__version__}'" not in version_file.read_text():
        warnings.warn(
            f"the script lies beside another version of timm than the installed one, which it will "
            f"use, {timm.__version__}: take the script of that version (git checkout "
            f"v{timm.__version__}), or install the package beside it (pip install {folder})",
            stacklevel=2,
        )
